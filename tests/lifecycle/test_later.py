"""What is pushed for later is handled then: not before, once, and by whichever host is there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maildefer.control.audit import audit
from maildefer.maildir.names import EntryName, pushed_at
from maildefer.queue import Queue
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, Pool
from tests.lifecycle.project import BEAT_SECONDS, PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle

COUNT = 1000
PUSH = """
import sys
from datetime import UTC, datetime
from threading import Thread

from maildefer.queue import Queue

queue, when, keys = Queue(sys.argv[1]), eval(sys.argv[2]), []

def push_some():
    for _ in range(int(sys.argv[3])):
        keys.append(queue.push(b"Subject: x\\n\\n", sender="", recipient="quick@test", **when))

threads = [Thread(target=push_some) for _ in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*keys)
"""
CLOCK = """
import os, time
from maildefer.host import mounts

_time, _skew = time.time, float(os.environ["SKEW_SECONDS"])
time.time = lambda: _time() + _skew
mounts.is_local = lambda path: False  # a local filesystem would go by this clock
"""


def clock(project: Project, skew_seconds: float) -> dict[str, str]:
    """The environment of a process whose wall clock is so far off, on a mount that goes by another clock."""
    folder = project.path / "clock"
    if not folder.exists():  # else it would be empty for a moment, in which a pool may start a process
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(CLOCK)
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "SKEW_SECONDS": str(skew_seconds)}


def push(project: Project, when: str, count: int, skew_seconds: float = 0.0) -> list[str]:
    """Push messages by a program of its own, with that wall clock."""
    done = subprocess.run(
        [sys.executable, "-c", PUSH, project.queue.path, when, str(count // 10)],
        env={**os.environ, **clock(project, skew_seconds)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split()


def handled_at(project: Project) -> dict[str, float]:
    """When the handler began with each key, by the wall clock."""
    behind = time.time() - time.monotonic()
    return {note.key: note.time + behind for note in project.notes("start")}


@pytest.mark.slow
@pytest.mark.parametrize("skew_seconds", [0.0, 3600.0, -3600.0])
def test_a_thousand_messages_for_one_moment_are_handled_then_by_the_host_that_is_left(
    project: Project, start: Start, skew_seconds: float
) -> None:
    """Whatever the clocks of the pusher and of the hosts say; none before, each once, the last soon after."""
    began = time.time()
    hosts = [start(host="a", environ=clock(project, -1800)), start(host="b", environ=clock(project, 7200))]
    # A busy machine takes its time for all that comes before it is due: as long as for two pools, some times over.
    after = 20 + int(4 * (time.time() - began))
    began = time.time()
    moment = int(began) + after
    by_clock = f"{{'at': datetime.fromtimestamp({moment}, UTC)}}"
    when = f"{{'after': {after}}}" if skew_seconds else by_clock
    keys = push(project, when, COUNT, skew_seconds)
    dues = {key: pushed_at(key) or 0.0 for key in keys}
    assert min(dues.values()) >= (began + after if skew_seconds else moment)
    assert max(dues.values()) <= time.time() + after + 2
    for host in hosts:
        host.kill_tree()
    assert len(project.names("later_new")) == COUNT
    left = start(host="c", environ=clock(project, 900))
    assert time.time() < min(dues.values()) - BEAT_SECONDS, "the machine is too slow for this test"
    eventually(project.is_empty, "all are handled", after + 2 * PATIENCE_SECONDS)
    assert project.starts() == dict.fromkeys(keys, 1)
    handled = handled_at(project)
    assert min(handled[key] - dues[key] for key in keys) >= 0
    late_seconds = max(handled.values()) - max(dues.values())
    report = audit([project.queue.path])
    assert (report.accepted, report.ended, report.suspects, report.unrecorded) == (COUNT, COUNT, [], 0)
    left_pid = left.pid
    began = time.monotonic()
    push(project, "{}", COUNT)
    eventually(project.is_empty, "as many without a due time", 2 * PATIENCE_SECONDS)
    drain_seconds = time.monotonic() - began
    assert left.pid == left_pid
    print(f"the last {late_seconds:.2f} s after its time; as many without one: {drain_seconds:.2f} s")
    assert late_seconds <= 30 + drain_seconds, "soon, for a machine that may be busy at either time"


def test_the_audit_proves_what_waits_for_later_while_no_host_is_there(project: Project) -> None:
    keys = push(project, "{'after': 3600}", 10)
    report = audit([project.queue.path], timeout_seconds=0)
    assert (report.accepted, report.found["deferred"], report.suspects) == (10, 10, [])
    assert Queue(project.queue.path).cancel(keys[0])
    report = audit([project.queue.path], timeout_seconds=0)
    assert (report.ended, report.found["deferred"], report.suspects) == (1, 9, [])


def test_what_another_program_puts_into_new_for_later_waits_too(project: Project, start: Start) -> None:
    """As a front end of another user has to; the worker that sees it tells its keeper by no more than the folder."""
    start(workers=1)
    [key] = project.push("quick")
    eventually(project.is_empty, "it is handled")
    due = int(time.time()) + 4
    data = b"Delivered-To: quick@test\nReturn-Path: <>\nSubject: x\n\n"
    Path(project.queue.tmp, "x").write_bytes(data)
    os.rename(f"{project.queue.tmp}/x", f"{project.queue.new}/1.x,d={due}")
    eventually(lambda: project.names("later_new"), "it is postponed")
    assert project.names("later_new") == [EntryName(key="1.x", returns=1, due=due)]
    eventually(lambda: len(project.notes("end")) == 2, "it is handled")
    eventually(project.is_empty, "it is acked")
    assert project.starts() == {key: 1, "1.x": 1}
    assert handled_at(project)["1.x"] >= due


def test_what_a_handler_pushes_for_later_waits_for_no_listing(tmp_path: Path) -> None:
    """Its worker tells the keeper, which lists what is deferred once a minute here."""
    project = Project(tmp_path, beat_seconds=120, ttl_seconds=600)
    pool = Pool(project, workers=1)
    pool.start()
    try:
        pool.await_ready()
        eventually(lambda: os.listdir(project.queue.status), "the chores of its first beat are over")
        project.push("later1")
        eventually(lambda: len(project.notes("end")) == 2, "both are handled", 30)
        assert pool.stop() == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()
