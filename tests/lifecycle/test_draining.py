"""How a pool ends: by TERM, at the drain's deadline, at once, and under load."""

from __future__ import annotations

import os
import signal

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, survivors
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle


def test_term_lets_the_message_in_hand_be_finished(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    project.go()
    assert pool.wait() == 0
    assert [(note.word, note.key) for note in project.notes()] == [("start", key), ("end", key)]
    assert project.is_empty()
    assert project.leases() == []
    assert pool.events("worker.died") == []


# A log that takes its time.
SLOW_LOG = """
import time
from maildefer import events

_emit = events.emit

def emit(event, **facts):
    _emit(event, **facts)
    if event == "pool.draining":
        time.sleep(0.5)

events.emit = emit
"""


def test_a_draining_pool_claims_nothing_more(project: Project, start: Start) -> None:
    site = project.path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW_LOG)
    pool = start(workers=1, environ={"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"})
    [held] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    waiting = project.push("quick", 50)
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    project.go()
    assert pool.wait() == 0
    assert project.starts().keys() == {held}
    assert sorted(entry.waiting() for entry in project.names("new")) == sorted(waiting)


@pytest.mark.invariant(5)
def test_what_is_killed_at_the_drains_deadline_is_released_uncharged(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"drain_seconds": 0.3})
    [key] = project.push("hang")
    eventually(lambda: project.notes("start"), "the handler begins")
    assert pool.stop() == 0
    assert [entry.waiting() for entry in project.names("new")] == [f"{key},n=1"]
    assert [event["key"] for event in pool.events("claim.released")] == [key]
    assert pool.events("worker.died", charged=True) == []
    assert project.leases() == []


def test_one_int_drains_and_a_second_ends_at_once(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"drain_seconds": 600})
    [key] = project.push("hang")
    eventually(lambda: project.notes("start"), "the handler begins")
    pool.signal(signal.SIGINT)
    pool.await_event("pool.draining", reason="SIGINT")
    assert pool.process is not None
    assert pool.process.poll() is None
    pool.signal(signal.SIGINT)
    assert pool.wait() == 0
    assert [entry.waiting() for entry in project.names("new")] == [f"{key},n=1"]


def test_quit_ends_at_once_and_charges_nobody(project: Project, start: Start) -> None:
    pool = start(workers=2, settings={"drain_seconds": 600})
    keys = project.push("hang", 2)
    eventually(lambda: len(project.notes("start")) == 2, "both handlers begin")
    pool.signal(signal.SIGQUIT)
    assert pool.wait() == 0
    assert sorted(entry.waiting() for entry in project.names("new")) == sorted(f"{key},n=1" for key in keys)
    assert project.leases() == []


def test_a_keeper_killed_in_the_drain_is_replaced_and_the_claims_are_given_back(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"drain_seconds": 3})
    [key] = project.push("hang")
    eventually(lambda: project.notes("start"), "the handler begins")
    keeper = pool.child("keeper")
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    os.kill(keeper, signal.SIGKILL)
    assert pool.wait() == 0
    assert [entry.waiting() for entry in project.names("new")] == [f"{key},n=1"]
    assert project.leases() == []


def test_everything_of_a_stopped_pool_is_tidied_away(project: Project, start: Start) -> None:
    pool = start()
    eventually(lambda: os.path.exists(pool.pidfile), "the pid file")
    assert pool.stop() == 0
    assert not os.path.exists(pool.pidfile)
    assert not survivors(project.path)
    host_directory = next(pool.runtime.iterdir())
    assert [path.name for path in host_directory.iterdir() if not path.name.endswith(".lock")] == []
    assert os.listdir(project.queue.status) == []
    assert os.listdir(project.queue.tmp) == []


def test_under_load_a_stop_finishes_or_releases_what_is_in_flight(project: Project, start: Start) -> None:
    """The issue's scripted run, small: some handlers end within the drain's time, some never do."""
    pool = start(workers=4, settings={"drain_seconds": 1})
    pushed: set[str] = set()
    for _ in range(15):
        pushed.update(project.push("sleep0.02", 6), project.push("sleep0.3", 1))
    hanging = set(project.push("hang"))
    pushed |= hanging
    eventually(lambda: len(project.notes("end")) > 30, "it is under way")
    assert pool.stop() == 0
    started, ended = project.starts(), {note.key for note in project.notes("end")}
    left = {entry.key: entry for entry in project.names("new")}
    assert project.names("cur") == []
    assert left.keys() | ended == pushed, "nothing is lost"
    assert left.keys() & ended == set(), "what was handled to its end is not there any more"
    assert all(count == 1 for count in started.values()), "nothing was handled twice"
    assert {entry.attempts for entry in left.values()} <= {0}, "nothing in flight was charged"
    (project.path / "journal").unlink()
    second = start(workers=4)
    eventually(lambda: len(project.notes("end")) == len(left.keys() - hanging), "the rest is handled")
    eventually(lambda: project.starts().keys() == left.keys(), "what hangs is begun again, too")
    second.signal(signal.SIGQUIT)
    assert second.wait() == 0
