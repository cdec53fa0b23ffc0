"""Async handlers: many messages in flight in a worker, and none of them has to suffer for another one."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from maildefer.maildir.reasons import read_reason
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, Project, eventually
from tests.lifecycle.test_batches import push, sizes

pytestmark = pytest.mark.lifecycle


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, APPLICATION.parent / "asyncs")


def workers(pool: Pool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = eventually(pool.status, "it tells how it does")["workers"]
    return found


def in_flight(pool: Pool) -> list[int]:
    """How many messages each worker has in flight."""
    return sorted(worker["in_handlers"] for worker in workers(pool))


def test_a_hundred_are_in_flight_in_each_worker_and_a_drain_waits_for_them(
    project: Project, start: Start
) -> None:
    pool = start(workers=2)
    keys = push(project, *["wait@test"] * 230)
    eventually(lambda: in_flight(pool) == [100, 100], "two hundred are in flight")
    # The last ones count as soon as they are handed to the loop, which begins them a moment later.
    eventually(lambda: len(project.notes("start")) == 200, "all of them have begun")
    assert in_flight(pool) == [100, 100]
    assert {worker["handler"] for worker in workers(pool)} == {"workers.front.HANDLE"}
    assert {worker["state"] for worker in workers(pool)} == {"handling"}
    assert len(project.names("new")) == 30, "what has no room is not claimed"
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    project.go()
    assert pool.wait() == 0
    assert len(project.notes("end")) == 200
    assert len(project.names("new")) == 30
    assert project.names("cur") == []
    acked = Counter(event["key"] for event in pool.events("attempt.ended", outcome="acked"))
    assert acked == Counter(note.key for note in project.notes("end"))
    assert set(acked) < set(keys)


def test_a_killed_worker_has_all_taken_back_each_charged_once_and_they_run_in_smaller_company(
    project: Project, start: Start
) -> None:
    pool = start(workers=1)
    keys = push(project, *["wait@test"] * 100)
    eventually(lambda: in_flight(pool) == [100], "all are in flight")
    [killed] = [worker["pid"] for worker in workers(pool)]
    os.kill(killed, signal.SIGKILL)
    died = pool.await_event("worker.died", pid=killed)
    assert (died["charged"], died["handler"]) == (True, "workers.front.HANDLE")
    eventually(lambda: in_flight(pool) == [22], "a hundred to the power of two thirds")

    def crashes() -> dict[str, int]:
        found = [entry for folder in ("new", "cur") for entry in project.names(folder)]
        return {entry.key: entry.crashes for entry in found}

    # The new worker claims the first ones while the last are still being taken back.
    eventually(lambda: crashes() == dict.fromkeys(keys, 1), "all are taken back")
    project.go()
    eventually(project.is_empty, "all are handled")
    assert set(project.starts()) == set(keys)
    assert Counter(note.key for note in project.notes("end")) == Counter(keys)


def test_in_the_company_of_a_hundred_killers_of_each_kind_are_buried_and_nobody_else(
    project: Project, start: Start
) -> None:
    start(workers=2, settings={"max_crashes": 3}, environ={"ASYNC_CONCURRENCY": "50"})
    sound = push(project, *["sleep0.05@test"] * 50, *["sleep0.01@many"] * 10)
    killers = push(project, "kill@test", "kill@many", "kill@plain")
    sound += push(project, *["sleep0.05@test"] * 45, *["sleep0.01@many"] * 5, *["quick@plain"] * 5)
    eventually(lambda: len(project.names("dead_new")) == 3, "the killers are buried")
    eventually(project.is_empty, "all others are handled")
    dead = {entry.key: entry.crashes for entry in project.names("dead_new")}
    assert dead == dict.fromkeys(killers, 3)
    assert {note.key for note in project.notes("end")} == set(sound)


def test_each_message_in_flight_has_an_outcome_of_its_own(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [defer, reject, fail, cancel, brief, fork] = (
        push(project, what)[0]
        for what in ("defer300@test", "reject@test", "fail@test", "cancel@test", "hang@brief", "fork@test")
    )
    plain = push(project, *["quick@plain"] * 2)
    others = push(project, *["wait@test"] * 20)
    batch = push(project, *["sleep0.01@many"] * 3, "sleep0.001@many")

    pool.await_event("attempt.ended", key=brief, outcome="deferred")
    pool.await_event("attempt.ended", 4, handler="workers.front.MANY")
    eventually(lambda: in_flight(pool) == [20], "the others are in flight still")
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    later = push(project, *["quick@test"] * 3)
    project.go()
    eventually(lambda: not project.names("cur"), "what was in flight is settled in a pause")
    assert {entry.key for entry in project.names("new")} == set(later)
    pool.signal(signal.SIGCONT)
    eventually(lambda: not project.names("new") and not project.names("cur"), "all have an outcome")
    pool.await_event("attempt.ended", 35)
    outcomes = {event["key"]: event["outcome"] for event in pool.events("attempt.ended")}
    assert outcomes == {
        **dict.fromkeys((defer, fail, cancel, brief), "deferred"),
        **dict.fromkeys((reject, batch[3]), "buried"),
        **dict.fromkeys((fork, *plain, *others, *later, *batch[:3]), "acked"),
    }
    deferred = {entry.key: (entry.attempts, entry.failures) for entry in project.names("later_new")}
    assert deferred == {defer: (1, 0), fail: (1, 1), cancel: (1, 1), brief: (1, 1)}
    [reason] = pool.events("attempt.ended", key=brief)
    assert "workers.front.BRIEF was cancelled at its time limit of 0.3 s" in reason["reason"]
    assert pool.events("worker.died") == []
    assert sizes(project) == [4]
    [worker] = workers(pool)
    counters = ("handled", "acked", "deferred", "failed", "buried", "released", "lost")
    assert [worker[name] for name in counters] == [35, 29, 4, 3, 2, 0, 0]


def test_a_handler_that_swallows_its_cancellation_ends_its_worker_as_any_over_its_limit(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"max_crashes": 2})
    [bad] = push(project, "swallow@brief")
    died = pool.await_event("worker.died")
    assert (died["handler"], died["charged"]) == ("workers.front.BRIEF", True)
    [dead] = eventually(lambda: project.names("dead_new"), "it is buried at the crash limit")
    assert dead.key == bad
    reason = str(read_reason(project.queue, dead)["reason"])
    assert "by its time limit of 0.3 s in workers.front.BRIEF after" in reason
    push(project, "quick@test")
    eventually(project.is_empty, "the next one goes on")


def test_where_the_loop_is_blocked_the_handler_that_blocks_it_is_named(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"handler_timeout_seconds": 60}, environ={"BRIEF_SECONDS": "3"})
    keys = push(project, "hang@brief", "block@test")
    timed_out = pool.await_event("worker.timed_out")
    assert (timed_out["handler"], timed_out["entry"].partition(",a=")[0]) == ("workers.front.HANDLE", keys[1])
    died = pool.await_event("worker.died")
    assert (died["handler"], died["charged"]) == ("workers.front.HANDLE", True)
    assert "in _block" in died["traceback"]

    def charged() -> set[str]:
        """Wherever they are by then: another worker has them at once."""
        folders = ("new", "cur", "later_new", "dead_new")
        return {entry.key for folder in folders for entry in project.names(folder) if entry.crashes}

    eventually(lambda: charged() == set(keys), "both are taken back, and charged")


def test_messages_of_a_conversation_run_one_at_a_time_and_in_order(project: Project, start: Start) -> None:
    start(workers=1)
    keys = push(project, *["sleep0.02@talk"] * 10)
    others = push(project, *["sleep0.02@test"] * 10)
    eventually(project.is_empty, "all are handled")
    notes = [note for note in project.notes() if note.key in keys]
    assert [note.key for note in notes if note.word == "start"] == keys
    assert [note.word for note in notes] == ["start", "end"] * 10
    assert set(project.starts()) == {*keys, *others}


def test_a_limit_over_all_hosts_holds_for_what_is_in_flight(project: Project, start: Start) -> None:
    start(workers=2)
    keys = push(project, *["sleep0.02@test"] * 12, queue="run/later")
    eventually(project.is_empty, "all are handled")
    running = peak = 0
    for note in project.notes():
        running += 1 if note.word == "start" else -1
        peak = max(peak, running)
    assert peak == 2
    assert Counter(note.key for note in project.notes("end")) == Counter(keys)


def test_what_is_in_flight_when_the_time_of_a_drain_is_up_goes_back_uncharged(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"drain_seconds": 0.2})
    keys = push(project, *["hang@test"] * 20, *["hang@talk"] * 2)
    eventually(lambda: in_flight(pool) == [21], "all but one of the conversation are in a handler")
    assert pool.stop() == 0
    back = [entry for folder in ("new", "later_new") for entry in project.names(folder)]
    assert {entry.key: (entry.attempts, entry.crashes) for entry in back} == dict.fromkeys(keys, (0, 0))
