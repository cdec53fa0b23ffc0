"""Periodic tasks of real pools: hosts whose clocks differ, that die, that are all away, and that reload."""

from __future__ import annotations

import os
import signal
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from maildefer.handling.tasks.call import Call, composed
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import read_reason
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, Pool
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle

TASKS = """
import os, time
from maildefer.tasks import task

def called(name):
    descriptor = os.open("calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{name} {time.clock_gettime(time.CLOCK_REALTIME):.3f}\\n".encode())
    os.close(descriptor)
"""
EACH_SECOND = """
@task(every=1, catch_up="%s")
def %s(): called("%s")
"""
# The clock of a host; and, with MOUNT, a local folder taken for a mount that has a clock of its own.
SITE = """
import os, time
from maildefer.host import mounts

real, skew = time.time, float(os.environ["SKEW"])
time.time = lambda: real() + skew
if os.environ["MOUNT"]:
    mounts.is_local = lambda path: False
"""


@pytest.fixture
def project(project: Project) -> Project:
    project.edit("conf/settings.py", '["workers.front"]', '["workers.front", "workers.nightly"]')
    schedule(project, "all")
    return project


def schedule(project: Project, *catch_ups: str) -> None:
    tasks = [EACH_SECOND % (how, f"do_{how}", f"do_{how}") for how in catch_ups]
    (project.path / "workers/nightly.py").write_text(TASKS + "".join(tasks))


def clock(project: Project, skew: float, *, mount: bool) -> dict[str, str]:
    folder = project.path / "site"
    if not folder.exists():  # else it would be empty for a moment, in which a pool may start a process
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(SITE)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "SKEW": f"{skew:g}", "MOUNT": "yes" if mount else ""}


def instants(*pools: Pool, task: str = "do_all") -> list[int]:
    """Those for which a host says that it has pushed a call."""
    found = (pool.events("tick.pushed", task=f"workers.nightly.{task}") for pool in pools)
    return sorted(event["instant"] for events in found for event in events)


def calls(project: Project, task: str = "do_all") -> list[float]:
    """When each was made."""
    path = project.path / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(float(line.split()[1]) for line in lines if line.split()[0] == task)


def is_without_gap(found: list[int]) -> bool:
    return all(later == one + 1 for one, later in pairwise(found))


@pytest.mark.slow
@pytest.mark.parametrize("mount", [True, False], ids=["by the mount's clock", "each by its own clock"])
def test_hosts_whose_clocks_are_half_a_minute_apart_make_one_call_for_each_instant(
    project: Project, start: Start, mount: bool
) -> None:
    first = start(host="a", environ=clock(project, 0, mount=mount))
    second = start(host="b", environ=clock(project, 30, mount=mount))
    eventually(lambda: len(set(instants(first, second))) >= 20 + 30 * (not mount), "twenty instants")
    for pool in (first, second):
        pool.signal(signal.SIGTERM)
    for pool in (first, second):
        assert pool.wait() == 0
    made, waiting = instants(first, second), len(project.names("new"))
    assert is_without_gap(made), "none is doubled, and none is lost"
    assert len(calls(project)) + waiting == len(made)
    early = max(one - then for one, then in zip(made, calls(project), strict=False))
    if mount:
        assert early < 2, "none is made before its time"
    else:
        assert 20 < early < 32, "the host whose clock is ahead makes them"


@pytest.mark.slow
def test_hosts_that_are_killed_lose_no_instant_and_double_none(project: Project, start: Start) -> None:
    """An event is lost with its host, where that dies between the push and the event."""
    pools, kills = [start(host=host) for host in "ab"], 4
    for number in range(kills):
        before = len(instants(*pools))
        eventually(lambda before=before: len(instants(*pools)) >= before + 2, "they go on")  # type: ignore[misc]
        pool = pools[number % 2]
        pool.kill_tree()
        pool.start().await_ready()
        os.kill(pools[(number + 1) % 2].child("keeper"), signal.SIGKILL)
    eventually(lambda: len(instants(*pools)) >= 20, "twenty instants")
    for pool in pools:
        pool.stop()
    made, waiting = instants(*pools), len(project.names("new"))
    assert len(set(made)) == len(made)
    wanted = made[-1] - made[0] + 1
    assert wanted - len(made) <= 2 * kills
    assert len(calls(project)) + waiting >= wanted, "each was called"


@pytest.mark.slow
def test_what_all_hosts_missed_is_made_up_for_as_each_task_asks(project: Project, start: Start) -> None:
    schedule(project, "last", "all", "none")
    pools = [start(host=host) for host in "ab"]
    eventually(lambda: instants(*pools, task="do_none") and instants(*pools), "they begin")
    for pool in pools:
        pool.kill_tree()
    before = int(time.time())
    eventually(lambda: time.time() > before + 7, "some instants pass")
    pools += [start(host=host) for host in "cd"]
    found = lambda how: instants(*pools, task=f"do_{how}")  # noqa: E731
    eventually(
        lambda: (
            min(len(found(how)) for how in ("last", "all", "none")) >= 4 and found("none")[-1] > before + 7
        ),
        "they go on",
    )
    for pool in pools[2:]:
        pool.stop()
    made_up, skipped = (next(one for one in found(how) if one > before) for how in ("last", "none"))
    made = found("all")
    untold = set(range(made[0], made[-1])) - set(made)
    assert len(set(made)) == len(made)
    assert len(untold) <= 2, "by hosts that died between a push and its event"
    assert all(one <= before for one in untold)
    assert made_up >= before + 5
    joins = [pool.events("lease.joined", queue="run/queue")[0]["ts"] for pool in pools[2:]]
    joined = min(datetime.fromisoformat(each).timestamp() for each in joins)
    assert skipped > joined, "the last one is left out too"
    for how in ("last", "none"):
        assert is_without_gap([one for one in found(how) if one > before])


@pytest.mark.slow
def test_a_task_that_is_gone_stops_with_the_reload_and_its_calls_become_dead_letters(
    project: Project, start: Start, tmp_path: Path
) -> None:
    pool = start(host="a")
    eventually(lambda: instants(pool), "it begins")
    (project.path / "workers/nightly.py").write_text(TASKS + EACH_SECOND % ("all", "do_other", "do_other"))
    pool.signal(signal.SIGHUP)
    eventually(lambda: len(instants(pool, task="do_other")) >= 2, "the other one begins")
    ended = instants(pool)
    eventually(lambda: len(instants(pool, task="do_other")) >= 4, "the other one goes on")
    assert instants(pool) == ended
    call = Call(task="workers.nightly.do_all", args=[], kwargs={})
    path = project.queue.path
    key = Pusher(project.queue, host="test").push(
        composed(call, "workers.nightly.do_all@task.invalid", path, "test")
    )
    (letter,) = eventually(
        lambda: [one for one in project.names("dead_new") if one.key == key], "it is buried"
    )
    assert "workers.nightly.do_all" in str(read_reason(project.queue, letter))
