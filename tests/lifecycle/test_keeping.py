"""A keeper on a real filesystem that refuses some of what it does: the rest goes on, and the status says what not."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maildefer.message.envelope import block
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool, stopped
from tests.lifecycle.project import BODY, Project, eventually
from tests.support.queues import leave_synced

pytestmark = pytest.mark.lifecycle


@contextmanager
def immovable(path: str) -> Iterator[None]:
    """A file that even root can't rename; or skip, where the filesystem has no such attribute."""
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", path], check=False).returncode:
        pytest.skip("no immutable files here")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


def deferred(project: Project, key: str) -> str:
    """An entry that another host has deferred, and that is due now; its path."""
    path = f"{project.queue.later_new}/{key},n=1,d={int(time.time())}"
    to = block(key, "ann@example.org", "quick@test", host="test", when=time.time(), via="push")
    Path(project.queue.tmp, key).write_bytes(to + BODY)
    os.rename(f"{project.queue.tmp}/{key}", path)
    return path


def failing(pool: Pool) -> set[str]:
    return {fault["chore"] for fault in pool.status()["queues"][0]["faults"]}


def test_what_a_push_had_made_durable_before_a_power_cut_is_handled_as_soon_as_a_pool_joins(
    project: Project, start: Start
) -> None:
    data = block("1.x", "ann@example.org", "quick@test", host="test", when=time.time(), via="push") + BODY
    whole = leave_synced(project.queue, data=data)
    torn = leave_synced(project.queue, data=data, written=data[:-1])
    for name in os.listdir(project.queue.synced):  # whatever this filesystem says of a boot
        os.utime(f"{project.queue.synced}/{name}", (0, 0))
    pool = start(workers=1)
    pool.await_event("push.recovered", key=whole, queue="run/queue")
    pool.await_event("push.torn", key=torn, queue="run/queue")
    eventually(lambda: project.notes("end", whole), "it is handled")
    eventually(project.is_empty, "nothing is left")
    assert os.listdir(project.queue.synced) == []
    assert pool.stop() == 0


@pytest.mark.slow
def test_neither_a_dead_host_nor_a_due_entry_nor_a_request_waits_for_a_name_that_can_not_be_moved(
    project: Project, start: Start
) -> None:
    stuck = deferred(project, "1.stuck")
    with immovable(stuck):
        first = start(host="a", workers=1)
        [held] = project.push("wait")
        eventually(lambda: project.notes("start"), "a has it")
        with stopped(first.child("keeper")):
            os.rmdir(project.queue.later_cur)
            Path(project.queue.later_cur).touch()
        second = start(host="b", workers=1)
        lease = first.status()["queues"][0]["lease"]
        eventually(lambda: failing(second) == {"promote", "return"}, "the status says what fails")
        first.kill_tree()
        second.await_event("lease.fenced", lease=lease, queue="run/queue")
        project.go()
        eventually(lambda: project.notes("end", held), "b has taken it over")
        deferred(project, "1.due")
        eventually(lambda: project.notes("end", "1.due"), "it is promoted")
        assert len(project.ask_all("pause")) == 1
        eventually(lambda: second.status()["paused"], "the request is answered")
        [told] = second.events("promotion.failed")
        assert told["entry"] == os.path.basename(stuck)
        assert second.events("beat.failed") == []
    os.unlink(project.queue.later_cur)
    second.await_event("chore.recovered", chore="promote")
    second.await_event("chore.recovered", chore="return")
    eventually(lambda: failing(second) == set(), "the status says that nothing does")
    project.ask_all("resume")
    eventually(project.is_empty, "the last is handled")
    assert second.stop() == 0


def test_a_queue_that_is_not_there_yet_is_made(project: Project, start: Start) -> None:
    shutil.rmtree(project.queue.path)
    pool = start(workers=1)
    assert pool.events("join.failed") == []
    project.renew()
    keys = project.push("quick", 3)
    eventually(project.is_empty, "they are handled")
    assert project.starts() == dict.fromkeys(keys, 1)


def test_a_clean_up_of_empty_folders_is_made_good(project: Project, start: Start) -> None:
    pool = start(workers=1)
    with stopped(pool.child("keeper")):  # else it may make them again before the look
        subprocess.run(
            ["find", project.queue.path, "-mindepth", "1", "-type", "d", "-empty", "-delete"], check=True
        )
        assert not os.path.exists(project.queue.new)
    keys = project.push("quick", 3)
    eventually(project.is_empty, "they are handled")
    assert project.starts() == dict.fromkeys(keys, 1)
    eventually(lambda: os.path.isdir(project.queue.requests), "the keeper has made it again")
    project.ask_all("stop")
    assert pool.wait() == 0
