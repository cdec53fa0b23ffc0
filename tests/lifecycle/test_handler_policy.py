"""The policy that handlers have by `@retry` and `@timeout`, in a running pool."""

from __future__ import annotations

import os
import signal

import pytest

from maildefer.maildir import reasons
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


def decorate(project: Project, line: str) -> None:
    project.edit("workers/front.py", "import Defer, Reject, route, stateless", "import *")
    project.edit("workers/front.py", "@stateless\ndef HANDLE", f"@stateless\n{line}\ndef HANDLE")


def reason(project: Project) -> str:
    [dead] = eventually(lambda: project.names("dead_new"), "it is buried")
    return str(reasons.read_reason(project.queue, dead)["reason"])


def test_a_handler_of_one_attempt_never_runs_again_after_an_exception(project: Project, start: Start) -> None:
    decorate(project, "@retry(attempts=1)")
    start(workers=1)
    [key] = project.push("fail")
    assert reason(project) == "given up after 1 attempt: RuntimeError: it broke"
    assert project.starts()[key] == 1


def test_nor_after_its_workers_death(project: Project, start: Start) -> None:
    decorate(project, "@retry(attempts=1)")
    start(workers=1)
    [key] = project.push("wait")
    [first] = eventually(lambda: project.notes("start"), "the handler begins")
    os.kill(first.pid, signal.SIGKILL)
    assert reason(project) == "given up after 1 attempt, by the death of the worker: @retry allows 1"
    [dead] = project.names("dead_new")
    assert (dead.attempts, dead.crashes) == (1, 1), "what looks at it once more is no attempt"
    assert project.starts()[key] == 1


@pytest.mark.parametrize("most", [2, 1])
def test_a_time_limit_of_a_handlers_own_counts_by_its_own_policy(
    project: Project, start: Start, most: int
) -> None:
    """The one beside it allows more; only the one that hangs has come to its end."""
    decorate(project, f'@timeout("1s")\n@retry(attempts={most})')
    with open(project.path / "workers" / "front.py", "a") as module:
        module.write(
            '\n\n@route("(user)@test", user=".+")\n@stateless\ndef BESIDE(message, user=None): ...\n'
        )
    start(workers=1)
    [key] = project.push("sleep60")
    words = reason(project)
    assert "by its time limit of 1 s in workers.front.HANDLE after " in words
    assert words.endswith(f": @retry allows {most}")
    [dead] = project.names("dead_new")
    assert (dead.attempts, dead.crashes) == (most, most)
    assert project.starts()[key] == most


def test_a_death_of_another_kind_counts_by_the_most_patient_handler(project: Project, start: Start) -> None:
    decorate(project, '@timeout("1h")\n@retry(attempts=1)')
    with open(project.path / "workers" / "front.py", "a") as module:
        module.write(
            '\n\n@route("(user)@test", user=".+")\n@stateless\ndef BESIDE(message, user=None): ...\n'
        )
    start(workers=1, settings={"max_crashes": 2})
    [key] = project.push("exit3")
    assert reason(project).startswith("its worker died 2 times while handling it, at last by exiting with 3")
    assert project.starts()[key] == 2


def test_a_handler_has_a_shorter_time_limit_than_its_pool(project: Project, start: Start) -> None:
    decorate(project, '@timeout("1s")')
    pool = start(workers=1, settings={"max_crashes": 1})
    project.push("sleep60")
    assert "by its time limit of 1 s in workers.front.HANDLE" in reason(project)
    assert len(pool.events("worker.timed_out", handler="workers.front.HANDLE")) == 1


def test_a_handler_has_a_longer_time_limit_than_its_pool(project: Project, start: Start) -> None:
    decorate(project, '@timeout("1h")')
    pool = start(workers=1, settings={"handler_timeout_seconds": 0.5})
    project.push("sleep2.5")
    eventually(lambda: project.notes("end"), "the handler ends")
    assert pool.events("worker.timed_out") == []
