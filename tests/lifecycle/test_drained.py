"""`maildefer supervise --drain`: a pool that ends when nothing is left for it to do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle

# It has patience for half a second with what it can't see, once that is a single queue.
HASTY = """
from maildefer.control import drained
from maildefer.cli import main
look = drained._look
def look_hastily(*pool):
    found = look(*pool)
    if found is not None and len(found.unseen) == 1:
        drained._UNSEEN_SECONDS = 0.5
    return found
drained._look = look_hastily
main()
"""
Drain = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def drain(project: Project) -> Iterator[Drain]:
    """Start the command in the project."""
    begun: list[subprocess.Popen[str]] = []

    def start(*options: str, hasty: bool = False) -> subprocess.Popen[str]:
        program = ["-c", HASTY] if hasty else ["-m", "maildefer"]
        command = [sys.executable, *program, "supervise", "--drain", "-w", "2", *options]
        begun.append(
            subprocess.Popen(
                command, cwd=project.path, env=Pool(project).environ, stderr=subprocess.PIPE, text=True
            )
        )
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
        assert process.stderr is not None
        process.stderr.close()


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=PATIENCE_SECONDS)[1]


def reasons(log: str) -> list[str]:
    """Why the pool drained and stopped."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line["reason"] for line in lines if line["event"] in ("pool.draining", "pool.stopped")]


def test_it_ends_when_all_queues_are_empty(project: Project, drain: Drain) -> None:
    project.push("quick", 20)
    project.push("sleep0.2", 2, queue="run/later")
    process = drain()
    log = said(process)
    assert process.returncode == 0, log
    assert project.is_empty()
    assert len(project.notes("end")) == 22
    assert project.leases() == []


def test_it_ends_at_once_where_nothing_is_there(project: Project, drain: Drain) -> None:
    process = drain("--log-format", "json")
    log = said(process)
    assert process.returncode == 0
    assert reasons(log) == ["drained", "drained"]


def test_it_waits_for_what_is_claimed(project: Project, drain: Drain) -> None:
    project.push("wait")
    process = drain()
    eventually(lambda: project.notes("start"), "the handler begins")
    assert process.poll() is None
    project.go()
    said(process)
    assert process.returncode == 0
    assert len(project.notes("end")) == 1


def test_deferred_entries_that_are_not_due_are_left_and_named(project: Project, drain: Drain) -> None:
    project.push("defer3600", 2)
    project.push("quick", 3)
    process = drain()
    log = said(process)
    assert process.returncode == 0
    assert "2 deferred entries are left, the first due in 1.0 h" in log or "due in 60 min" in log, log
    assert len(project.names("later_new")) == 2
    assert project.names("new") == project.names("cur") == []


def test_a_term_ends_it_as_any_pool(project: Project, drain: Drain) -> None:
    project.push("wait")
    process = drain("--log-format", "json")
    eventually(lambda: project.notes("start"), "the handler begins")
    os.kill(process.pid, signal.SIGTERM)
    project.go()
    assert set(reasons(said(process))) == {"SIGTERM"}
    assert process.returncode == 0


def test_a_pool_that_cannot_start_ends_with_its_own_code(project: Project, drain: Drain) -> None:
    project.edit("workers/front.py", "@stateless", "@no_such_decorator")
    process = drain()
    log = said(process)
    assert process.returncode == 78, log


def test_a_queue_that_cannot_be_joined_ends_it_with_an_error_once_the_others_are_empty(
    project: Project, drain: Drain
) -> None:
    project.push("quick", 20)
    later = project.path / "run/later"
    later.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(later)
    later.write_text("no queue")
    process = drain(hasty=True)
    log = said(process)
    assert process.returncode == os.EX_TEMPFAIL, log
    assert "run/later: the pool can't join it: the log says why. Nothing else is left" in " ".join(
        log.split()
    )
    assert project.names("new") == project.names("cur") == []
    assert len(project.notes("end")) == 20


def test_a_front_end_is_refused_beside_it(drain: Drain) -> None:
    process = drain("--intake")
    assert "a front end takes new messages" in " ".join(said(process).split())
    assert process.returncode == 2
