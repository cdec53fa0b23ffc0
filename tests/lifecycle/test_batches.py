"""Batches: gathered without holding up anything else, settled one by one, and no message's fate is another's."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from maildefer.maildir.names import split_beat
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.leases import fence
from maildefer.message.envelope import block
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import APPLICATION, BODY, Note, Project, eventually

pytestmark = pytest.mark.lifecycle

LONG = "300"  # seconds; a batch that lingers so long is run for another reason, or not at all


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, APPLICATION.parent / "batches")


def terms(limit: int = 10, linger: str = "0.3", calls: str = "") -> dict[str, str]:
    return {"BATCH_LIMIT": str(limit), "BATCH_LINGER": linger, "BATCH_CALLS": calls}


def push(project: Project, *recipients: str, queue: str = "run/queue") -> list[str]:
    pusher = Pusher(project.layouts[queue], host="test")
    composed = [
        lambda stem, to=to: [  # type: ignore[misc]
            block(stem, "ann@example.org", to, host="test", when=time.time(), via="push"),
            BODY,
        ]
        for to in recipients
    ]
    return [key for key in pusher.push_all(composed) if isinstance(key, str)]


def sizes(project: Project) -> list[int]:
    """Of the batches so far, in their order."""
    words = [note.word for note in project.notes()]
    return [int(word.removeprefix("batch")) for word in words if word.startswith("batch")]


def overlapping(project: Project, deaths: dict[int, float] | None = None) -> int:
    """How many calls began while another one was on; a killed worker's call lasts until its death."""
    on: dict[int, Note] = {}
    count = 0
    for note in project.notes():
        if note.word.startswith("batch"):
            count += any(note.time < (deaths or {}).get(pid, float("inf")) for pid in on)
            on[note.pid] = note
        elif note.word.startswith("called"):
            del on[note.pid]
    return count


def gathered(pool: Pool) -> int:
    """How many claims wait in workers' hands; the last of them may be told of before it is made."""
    told = sum(worker["gathered"] for worker in workers(pool))
    return min(told, sum(len(pool.project.names("cur", queue)) for queue in pool.project.layouts))


def workers(pool: Pool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = eventually(pool.status, "it tells how it does")["workers"]
    return found


def crashes(project: Project) -> dict[str, int]:
    """Of what is claimed in the first queue."""
    return {entry.key: entry.crashes for entry in project.names("cur")}


# Gathering


def test_messages_that_wait_are_handled_in_one_call(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(limit=10, linger=LONG))
    keys = push(project, *["quick@test"] * 20)
    eventually(project.is_empty, "all are handled")
    assert sizes(project) == [10, 10]
    assert project.starts() == dict.fromkeys(keys, 1)
    pool.await_event("attempt.ended", 20, outcome="acked", handler="workers.front.TOGETHER")


def test_a_batch_that_is_not_full_waits_as_long_as_it_lingers(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger="2"))
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    push(project, "quick@test", "quick@test")
    resumed_at = time.monotonic()
    pool.signal(signal.SIGCONT)
    eventually(project.is_empty, "both are handled")
    assert sizes(project) == [2]
    assert project.notes("start")[0].time - resumed_at >= 2


def test_without_a_linger_it_takes_what_there_is(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger="0"))
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    push(project, *["quick@test"] * 5)
    pool.signal(signal.SIGCONT)
    eventually(project.is_empty, "all are handled")
    assert sum(sizes(project)) == 5
    push(project, "quick@test")
    eventually(lambda: sum(sizes(project)) == 6, "a single one does not wait")


def test_messages_for_other_handlers_do_not_wait_for_the_batch(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger=LONG))
    push(project, "quick@test", "quick@test")
    eventually(lambda: gathered(pool) == 2, "two are gathered")
    alone = push(project, *["quick@alone"] * 3)
    eventually(lambda: len(project.notes("alone")) == 3, "the others are handled meanwhile")
    assert {note.key for note in project.notes("alone")} == set(alone)
    eventually(lambda: gathered(pool) == 2, "the others are settled, too")
    assert sizes(project) == []


def test_each_queues_batch_is_its_own(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(limit=2, linger=LONG))
    push(project, "quick@test")
    push(project, "quick@test", queue="run/later")
    eventually(lambda: gathered(pool) == 2, "one of each queue is gathered")
    push(project, "quick@test", queue="run/later")
    eventually(lambda: sizes(project) == [2], "the second queue's is full")
    pool.await_event("attempt.ended", 2, handler="workers.back.LATER")
    eventually(lambda: gathered(pool) == 1, "the first queue's waits on")


def test_where_all_handlers_are_batches_one_worker_of_a_host_gathers_for_all(
    project: Project, start: Start
) -> None:
    pool = start(workers=4, environ=terms(limit=41, linger=LONG))
    for count in range(1, 6):
        push(project, *["quick@test"] * 8, queue="run/later")
        eventually(lambda count=count: gathered(pool) == 8 * count, "they are gathered")  # type: ignore[misc]
    eventually(lambda: len([w for w in workers(pool) if w["gathered"]]) == 1, "by one worker")
    push(project, "quick@test", queue="run/later")
    eventually(project.is_empty, "the batch is full")
    assert sizes(project) == [41]


def test_while_a_call_is_on_another_worker_gathers_and_calls_when_it_has_ended(
    project: Project, start: Start
) -> None:
    pool = start(workers=3, environ=terms(limit=3, linger=LONG))
    push(project, "wait@test", "quick@test", "quick@test", queue="run/later")
    eventually(lambda: sizes(project) == [3], "the first batch is in its handler")
    push(project, *["quick@test"] * 7, queue="run/later")
    eventually(lambda: gathered(pool) == 10, "the others are gathered meanwhile")
    assert sizes(project) == [3]
    project.go()
    eventually(lambda: sizes(project) == [3, 3, 3], "the full ones are called")
    eventually(lambda: gathered(pool) == 1, "the last one waits")
    assert overlapping(project) == 0


def test_500_mails_are_as_many_calls_as_limit_and_linger_say_in_a_pool_with_other_handlers(
    project: Project, start: Start
) -> None:
    """The other handlers take long enough that no worker is idle meanwhile."""
    start(workers=8, environ=terms(limit=200, linger="15"))  # in which a busy machine fills a batch
    pushed_at = time.monotonic()
    mixed = [("sleep0.001@test", "sleep0.01@alone")[number % 2] for number in range(1000)]
    keys = push(project, *mixed)
    eventually(project.is_empty, "all are handled")
    assert sorted(sizes(project)) == [100, 200, 200]
    assert overlapping(project) == 0
    assert project.starts() == dict.fromkeys(keys[::2], 1)
    assert len(project.notes("alone")) == 500
    [last] = project.notes("batch100")
    assert last.time - pushed_at < 15 + 30, "it has not waited for the other handlers"
    assert len({note.pid for note in project.notes("alone")}) > 4


def test_calls_may_overlap_where_the_function_says_so(project: Project, start: Start) -> None:
    pool = start(workers=3, environ=terms(limit=3, linger=LONG, calls="overlap"))
    push(project, "wait@test", "quick@test", "quick@test", queue="run/later")
    eventually(lambda: sizes(project) == [3], "the first batch is in its handler")
    push(project, *["quick@test"] * 3, queue="run/later")
    eventually(lambda: sizes(project) == [3, 3], "the second one is handled meanwhile")
    assert len(pool.events("attempt.ended")) <= 3
    project.go()
    eventually(project.is_empty, "the first one, too")


def test_the_death_of_the_one_who_gathers_holds_nothing_up(project: Project, start: Start) -> None:
    pool = start(workers=3, environ=terms(limit=6, linger=LONG))
    push(project, *["quick@test"] * 3, queue="run/later")
    eventually(lambda: gathered(pool) == 3, "they are gathered")
    [one] = [worker["pid"] for worker in workers(pool) if worker["gathered"]]
    os.kill(one, signal.SIGKILL)
    push(project, *["quick@test"] * 3, queue="run/later")
    eventually(project.is_empty, "another one has all six")
    assert sizes(project) == [6]


@pytest.mark.slow
def test_an_exclusive_function_is_called_once_at_a_time_on_all_hosts(project: Project, start: Start) -> None:
    environ = terms(limit=5, linger="0.2", calls="exclusive")
    pools = [start(host=host, workers=3, environ=environ) for host in ("a", "b")]
    deaths: dict[int, float] = {}
    keys = push(project, *["sleep0.02@test"] * 30, *["wait@test"] * 4, *["sleep0.02@test"] * 30)

    def waiting_call() -> int:
        """The worker in whose call a message waits."""
        waiting = [note for note in project.notes("start") if note.pid in in_call(project)]
        on = {note.pid for note in waiting if note.key in keys[30:34]} - deaths.keys()
        return next(iter(on), 0)

    pid = eventually(waiting_call, "a worker is in the call")
    deaths[pid] = time.monotonic()  # not after: its keeper may be quicker than we are
    os.kill(pid, signal.SIGKILL)
    pid = eventually(waiting_call, "another one is in the call")
    [host] = [pool for pool in pools if pid in pool.worker_pids()]
    for pid in host.kill_tree():
        deaths[pid] = time.monotonic()
    eventually(waiting_call, "a worker of the other host is in the call")
    project.go()
    eventually(project.is_empty, "all are handled", 90)
    assert overlapping(project, deaths) == 0
    assert {note.key for note in project.notes("end")} == set(keys)


def in_call(project: Project) -> set[int]:
    """The processes that are in a call, as far as they have told."""
    on: set[int] = set()
    for note in project.notes():
        (on.add if note.word.startswith("batch") else on.discard if note.word.startswith("called") else id)(
            note.pid
        )
    return on


def test_an_exclusive_function_needs_no_lease_of_its_own_where_the_tokens_are(
    project: Project, start: Start
) -> None:
    pool = start(workers=2, environ=terms(limit=2, linger=LONG, calls="exclusive"), queues=["run/later"])
    push(project, "quick@test", "quick@test", queue="run/later")
    eventually(lambda: sizes(project) == [2], "it is called")
    eventually(lambda: not project.names("cur", "run/later"), "both are handled")
    assert pool.stop() == 0


# Outcomes


def test_a_defer_holds_for_all_or_for_the_one_that_it_is_said_for(project: Project, start: Start) -> None:
    start(workers=1, environ=terms(limit=3, linger=LONG))
    push(project, "quick@test", "deferall3600@test", "quick@test")
    eventually(lambda: len(project.names("later_new")) == 3, "all of the first batch are deferred")
    one = push(project, "quick@test", "deferone3600@test", "rejectone@test")[1]
    eventually(lambda: project.names("dead_new"), "the third is buried")
    eventually(lambda: not project.names("cur"), "all are settled")
    assert [entry.key for entry in project.names("later_new") if entry.key == one] == [one]
    assert len(project.names("later_new")) == 4
    assert [entry.attempts for entry in project.names("later_new")] == [1] * 4


def test_a_message_on_which_the_handler_fails_is_found_and_the_others_are_done(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, environ=terms(limit=8, linger=LONG))
    keys = push(project, *["quick@test"] * 4, "fail@test", *["quick@test"] * 3)
    eventually(lambda: project.names("later_new") and not project.names("cur"), "the batch is settled")
    assert [entry.key for entry in project.names("later_new")] == [keys[4]]
    assert sizes(project) == [8, 4, 4, 2, 1, 1, 2]
    pool.await_event("attempt.ended", 7, outcome="acked")
    assert len(pool.events("handler.failed")) == 1


def test_a_failure_on_everything_is_not_tried_on_everything(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(limit=32, linger=LONG))
    push(project, *["fail@test"] * 32)
    eventually(lambda: len(project.names("later_new")) == 32, "all are deferred")
    assert sizes(project) == [32, 16, 8, 4, 2, 1, 1, 1]
    pool.await_event("handler.failed", 3)
    assert pool.stop() == 0
    assert len(pool.events("handler.failed")) == 3


# Deaths


@pytest.mark.invariant(5)
def test_a_message_that_kills_the_worker_takes_no_other_to_the_dead_letters(
    project: Project, start: Start
) -> None:
    pool = start(workers=2, environ=terms(limit=40, linger="0.5"), settings={"max_crashes": 5})
    keys = push(project, *["quick@test"] * 17, "kill@test", *["quick@test"] * 22)
    eventually(lambda: project.names("dead_new"), "the killer is buried", 60)
    eventually(project.is_empty, "the others are handled", 30)
    [dead] = project.names("dead_new")
    assert (dead.key, dead.crashes) == (keys[17], 5)
    assert {note.key for note in project.notes("end")} == set(keys) - {keys[17]}
    pool.await_event("worker.died", 5, charged=True)


def test_a_dead_worker_charges_the_batch_that_it_handled_and_nothing_else(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, environ=terms(limit=3, linger=LONG))
    spared = push(project, "quick@test", "quick@test", queue="run/later")
    eventually(lambda: gathered(pool) == 2, "the second queue's are gathered")
    charged = push(project, "wait@test", "quick@test", "quick@test")
    [first] = eventually(lambda: project.notes("batch3"), "the first queue's batch is in its handler")
    os.kill(first.pid, signal.SIGKILL)
    pool.await_event("worker.died", charged=True)
    eventually(lambda: crashes(project) == dict.fromkeys(charged, 1), "another worker has the batch, charged")
    pool.await_event("claim.released", 2)
    found = [entry for folder in ("new", "cur") for entry in project.names(folder, "run/later")]
    assert {entry.key: entry.crashes for entry in found} == dict.fromkeys(spared, 0), "or gathered again"
    assert all(entry.attempts <= 1 for entry in found)


def test_a_dead_worker_that_only_gathered_charges_nobody(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger=LONG))
    keys = push(project, *["quick@test"] * 3)
    eventually(lambda: gathered(pool) == 3, "they are gathered")
    [pid] = pool.worker_pids()
    os.kill(pid, signal.SIGKILL)
    pool.await_event("claim.released", 3)
    eventually(lambda: gathered(pool) == 3, "another worker has them")
    assert {entry.key: (entry.attempts, entry.crashes) for entry in project.names("cur")} == dict.fromkeys(
        keys, (1, 0)
    )
    assert pool.events("worker.died", charged=True) == []


def test_a_worker_killed_by_a_single_message_does_not_charge_what_it_gathered(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, environ=terms(linger=LONG))
    keys = push(project, *["quick@test"] * 3)
    eventually(lambda: gathered(pool) == 3, "they are gathered")
    [killer] = push(project, "once@alone")
    eventually(lambda: len(project.notes("alone")) == 2, "the other is handled again")
    assert [note.attempt for note in project.notes("alone", killer)] == [1, 2]
    eventually(lambda: gathered(pool) == 3, "another worker has them")
    eventually(
        lambda: crashes(project) == dict.fromkeys(keys, 0), "none is charged, and the killer is settled"
    )


def test_a_batch_over_its_time_is_tried_again_in_parts(project: Project, start: Start) -> None:
    push(project, *["sleep0.3@test"] * 6)
    pool = start(
        workers=1,
        environ=terms(limit=6, linger="0.5"),
        settings={"handler_timeout_seconds": 1.0, "max_crashes": 4},
    )
    eventually(project.is_empty, "all are handled", 60)
    assert sizes(project)[0] == 6
    assert max(sizes(project)[1:]) <= 4
    assert project.names("dead_new") == []
    assert len(pool.events("worker.timed_out")) >= 1


def test_a_child_that_the_handler_forked_settles_nothing(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(limit=3, linger=LONG))
    push(project, "quick@test", "fork@test", "quick@test")
    eventually(project.is_empty, "all are handled")
    assert pool.stop() == 0
    assert len(pool.events("attempt.ended")) == 3
    assert pool.events("claim.lost") == []


def test_who_gathered_under_a_lease_that_is_fenced_is_killed(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger=LONG))
    keys = push(project, *["quick@test"] * 3)
    eventually(lambda: gathered(pool) == 3, "they are gathered")
    [pid] = pool.worker_pids()
    push(project, "quick@test", queue="run/later")
    eventually(lambda: gathered(pool) == 4, "the worker is on the other queue by now")

    def fenced() -> bool:
        beats = filter(None, map(split_beat, project.leases()))
        return any(fence(project.queue, lease, beat) for lease, beat in beats)

    eventually(fenced, "the lease is fenced")
    died = pool.await_event("worker.died")
    assert (died["pid"], died["charged"]) == (pid, False)
    eventually(lambda: len(project.names("cur")) == 3, "another worker has them", 30)
    assert {entry.key for entry in project.names("cur")} == set(keys)


# Ends


def test_a_lingering_worker_ends_at_once_in_a_drain(project: Project, start: Start) -> None:
    pool = start(workers=2, environ=terms(linger=LONG))
    keys = push(project, *["quick@test"] * 5)
    eventually(lambda: gathered(pool) == 5, "they are gathered")
    began = time.monotonic()
    assert pool.stop() == 0
    assert time.monotonic() - began < 60, "not as long as the batch lingers"
    assert {entry.key: (entry.attempts, entry.crashes) for entry in project.names()} == dict.fromkeys(
        keys, (0, 0)
    )
    assert sizes(project) == []


def test_a_batch_in_its_handler_is_finished_in_a_drain(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(limit=3, linger=LONG))
    push(project, "wait@test", "quick@test", "quick@test")
    eventually(lambda: project.notes("batch3"), "it is in its handler")
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    project.go()
    assert pool.wait() == 0
    assert project.is_empty()


def test_a_worker_that_is_replaced_handles_first_what_it_gathered(project: Project, start: Start) -> None:
    """Else one that is always too big, or whose share is smaller than the limit, would never handle any."""
    pool = start(workers=1, environ=terms(limit=100, linger=LONG), settings={"messages_per_worker": 10})
    keys = push(project, *["quick@test"] * 30)
    eventually(lambda: len(project.notes("end")) >= 20, "two workers have had their share")
    assert set(project.starts()) <= set(keys)
    assert all(count == 1 for count in project.starts().values())
    pool.await_event("worker.ended", 2)


def test_a_worker_over_its_memory_limit_handles_first_what_it_gathered(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, environ=terms(linger=LONG), settings={"memory_bytes_per_worker": 1})
    push(project, *["quick@test"] * 3)
    eventually(project.is_empty, "they are handled all the same")
    assert len(project.notes("end")) == 3
    assert pool.events("worker.died") == []


def test_a_paused_pool_handles_what_it_has_gathered_and_takes_no_more(project: Project, start: Start) -> None:
    pool = start(workers=1, environ=terms(linger="5"))  # in which a busy machine tells of it
    push(project, "quick@test", "quick@test")
    eventually(lambda: gathered(pool) == 2, "they are gathered")
    pool.signal(signal.SIGTSTP)
    pool.await_event("pool.paused")
    push(project, "quick@test")
    eventually(lambda: sizes(project) == [2], "the batch is handled when it is due")
    assert len(project.names("new")) == 1
