"""What a worker's death means, and how long the end of a pool pauses, as far as it needs no processes."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from maildefer import events
from maildefer.handling.project.settings import PoolSettings
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import boottime
from maildefer.pool import status_record, worker_deaths
from maildefer.pool.context import QueueOfPool
from maildefer.pool.fork import ChildProcess
from maildefer.pool.scoreboard import (
    IN_HANDLER,
    Header,
    ProcessKind,
    QueueState,
    Scoreboard,
    SlotWord,
    State,
)
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.scoreboard_views import SlotView
from maildefer.pool.status_record import Rates, on_claims
from maildefer.pool.supervisor.drain import Drain
from maildefer.pool.supervisor.workers import WorkerTable, tick_seconds
from maildefer.pool.worker.claim_slots import GatheredSlots

_NOBODY = 1 << 30  # no process has such a number


def a_worker_in_a_handler() -> tuple[Scoreboard, WorkerTable, ChildProcess]:
    board = Scoreboard(1, 1)
    workers = WorkerTable(board)
    child = ChildProcess(pid=7, kind=ProcessKind.WORKER, slot=0, number=1)
    workers.add_worker(child)
    board.words[board.slot(0) + SlotWord.HELD] = board.words[board.slot(0) + SlotWord.DEADLINE] = 1
    return board, workers, child


@pytest.fixture
def idle_workers(monkeypatch: pytest.MonkeyPatch) -> tuple[Scoreboard, WorkerTable, list[ChildProcess]]:
    """Three that share their memory with a template; a signal to one is only noted as `retiring`."""
    board = Scoreboard(3, 1)
    workers = WorkerTable(board)
    monkeypatch.setattr(workers, "_signal", lambda child, signum: None)
    children = [
        ChildProcess(pid=7 + slot, kind=ProcessKind.WORKER, slot=slot, number=1 + slot, is_shared=True)
        for slot in range(3)
    ]
    for child in children:
        workers.add_worker(child)
        board.words[board.slot(child.slot) + SlotWord.STATE] = State.IDLE
    return board, workers, children


IdleWorkers = tuple[Scoreboard, WorkerTable, list[ChildProcess]]
RESTING = PoolSettings(project="", module="", queues={}, router_defaults={}, idle_seconds_per_worker=60)


def test_workers_that_have_rested_after_messages_are_replaced_one_at_a_time(
    idle_workers: IdleWorkers,
) -> None:
    board, workers, (first, second, third) = idle_workers
    for child in (first, second):
        board.words[board.slot(child.slot) + SlotWord.HANDLED] = 1
    for now in (1000.0, 1059.0, 1060.0):
        workers.recycle(RESTING, now)
    assert (first.retiring, second.retiring) == (False, False)
    workers.recycle(RESTING, 1061.0)
    assert (first.retiring, second.retiring) == (True, False)
    workers.recycle(RESTING, 1063.0)
    assert (second.retiring, second.killed) == (True, "recycled")
    workers.recycle(RESTING, 5000.0)
    assert not third.retiring, "it has handled nothing, and has nothing to give back"


@pytest.mark.parametrize("why", ["busy", "another message", "not shared", "off"])
def test_a_worker_is_not_replaced_for_a_rest_that_it_had_not(idle_workers: IdleWorkers, why: str) -> None:
    board, workers, [child, *_] = idle_workers
    base = board.slot(child.slot)
    board.words[base + SlotWord.HANDLED] = 1
    child.is_shared = why != "not shared"
    settings = replace(RESTING, idle_seconds_per_worker=0) if why == "off" else RESTING
    workers.recycle(settings, 1000.0)
    if why == "busy":
        board.words[base + SlotWord.STATE] = State.BUSY
        workers.recycle(settings, 1059.0)
        board.words[base + SlotWord.STATE] = State.IDLE
    if why == "another message":
        board.words[base + SlotWord.HANDLED] = 2
        workers.recycle(settings, 1059.0)
    workers.recycle(settings, 1061.0)
    assert not child.retiring
    workers.recycle(settings, 2000.0)
    assert child.retiring == (why in ("busy", "another message"))


@pytest.mark.parametrize(
    ("killed", "by", "state"),
    [
        ("drain", signal.SIGKILL, State.DEAD_UNCHARGED),
        ("fence", signal.SIGKILL, State.DEAD_UNCHARGED),
        ("drain", signal.SIGSEGV, State.DEAD_CHARGED),
        ("", signal.SIGKILL, State.DEAD_CHARGED),
    ],
)
@pytest.mark.invariant(5)
def test_only_our_own_kill_spares_the_message_in_hand(
    killed: Literal["", "drain", "fence"], by: signal.Signals, state: State
) -> None:
    """A handler that crashes a moment before the KILL of a drain has crashed."""
    board, workers, child = a_worker_in_a_handler()
    child.killed = killed
    assert workers.reap(child, int(by))
    assert board.words[board.slot(0) + SlotWord.STATE] == state


def test_a_death_is_told_before_the_keeper_may_take_back_what_the_worker_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that in the log no entry is buried by a death that has not happened yet."""
    board, workers, child = a_worker_in_a_handler()
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        events, "emit", lambda event, **facts: seen.append((event, SlotView(board, 0).is_dead))
    )
    assert workers.reap(child, int(signal.SIGKILL))
    assert seen == [("worker.died", False)]
    assert SlotView(board, 0).is_dead


def test_a_supervisor_past_its_drains_deadline_still_pauses() -> None:
    shared: Any = SimpleNamespace(board=Scoreboard(1, 1), settings=SimpleNamespace(drain_seconds=0.0))
    draining = Drain(shared)
    draining.begin_drain("asked to")
    for seconds in (0, 1, 100):
        assert 0 < draining.seconds_left(boottime() + seconds) <= 0.2


BEGAN = 5_000_000_000


@pytest.mark.parametrize(
    ("status", "killed", "how"),
    [
        (int(signal.SIGSEGV), "", "by SIGSEGV"),
        (3 << 8, "", "by exiting with 3"),
        (int(signal.SIGABRT), "timeout", "by its time limit of 2.5 s"),
        (
            int(signal.SIGKILL),
            "timeout",
            "by its time limit of 2.5 s, by SIGKILL, since SIGABRT did not end it",
        ),
    ],
)
def test_the_board_keeps_how_a_worker_died_until_its_slot_is_free(
    status: int, killed: Literal["", "timeout"], how: str
) -> None:
    board = Scoreboard(1, 1)
    workers = WorkerTable(board)
    child = ChildProcess(pid=7, kind=ProcessKind.WORKER, slot=0, number=1)
    workers.add_worker(child)
    base = board.slot(0)
    ScoreboardSlot(board, 0).running("app.front.START")
    board.words[base + SlotWord.HELD] = 1
    board.words[base + SlotWord.BEGAN] = BEGAN
    board.words[base + SlotWord.DEADLINE] = BEGAN + 2_500_000_000
    child.killed = killed
    workers.reap(child, status)
    death = worker_deaths.read_death(board, 0, None)
    assert death is not None
    assert (death.how, death.handler) == (how, "app.front.START")
    assert death.seconds is not None
    assert str(death).startswith(f"{how} in app.front.START after ")
    board.clear_slot(0)
    assert worker_deaths.read_death(board, 0, None) is None


@pytest.mark.invariant(5)
def test_a_worker_that_dies_between_turns_of_its_loop_has_charged_what_is_in_flight() -> None:
    board = Scoreboard(1, 1)
    workers = WorkerTable(board)
    child = ChildProcess(pid=7, kind=ProcessKind.WORKER, slot=0, number=1)
    workers.add_worker(child)
    slots = GatheredSlots(board, 0, ScoreboardSlot(board, 0), 0, GatheredSlots.all_places(board, 0))
    flying, read = (slots.take_place(slots.next_seq(), "x") for _ in range(2))
    board.words[flying] |= IN_HANDLER
    assert workers.reap(child, int(signal.SIGKILL))
    assert board.words[board.slot(0) + SlotWord.STATE] == State.DEAD_CHARGED
    assert board.spared(0, 0) == {board.words[read] & 0xFFFF}


@pytest.mark.parametrize(
    ("seconds", "how"),
    [
        (1.0, "by holding up the event loop beyond another message's time limit"),
        (90.0, "by its time limit of 60 s"),
    ],
)
def test_whoever_held_up_the_loop_is_told_from_who_was_over_its_own_limit(seconds: float, how: str) -> None:
    board = Scoreboard(1, 1)
    workers = WorkerTable(board)
    child = ChildProcess(pid=7, kind=ProcessKind.WORKER, slot=0, number=1)
    workers.add_worker(child)
    base = board.slot(0)
    board.words[base + SlotWord.HELD] = board.words[base + SlotWord.DEADLINE] = 1
    board.words[base + SlotWord.BEGAN] = int((boottime() - seconds) * 1e9)
    board.words[base + SlotWord.LIMIT] = 60_000
    child.killed = "timeout"
    workers.reap(child, int(signal.SIGABRT))
    death = worker_deaths.read_death(board, 0, None)
    assert death is not None
    assert (death.how, death.most_failures) == (how, 0)


def test_a_worker_that_died_between_messages_was_in_no_handler() -> None:
    board = Scoreboard(1, 1)
    workers = WorkerTable(board)
    child = ChildProcess(pid=7, kind=ProcessKind.WORKER, slot=0, number=1)
    workers.add_worker(child)
    ScoreboardSlot(board, 0).running("app.front.START")
    board.words[board.slot(0) + SlotWord.BEGAN] = BEGAN
    workers.reap(child, int(signal.SIGSEGV))
    death = worker_deaths.read_death(board, 0, None)
    assert death is not None
    assert (str(death), death.handler, death.seconds) == ("by SIGSEGV", None, None)


def test_the_handler_of_now_is_on_the_board_whichever_was_there_before() -> None:
    board = Scoreboard(1, 1)
    slots = ScoreboardSlot(board, 0)
    for name in ("app.front.A_LONG_NAME", "app.B", "app.B", "x" * 500):
        board.words[board.slot(0) + SlotWord.HANDLER_LENGTH] = 0
        assert board.handler(0) == ""
        slots.running(name)
        assert board.handler(0) == name[:128]
    assert board.name(0) == ""


@pytest.mark.parametrize("word", [0, 1, 7, 99, (1 << 48) - 1, 1 << 63, (1 << 64) - 1])
def test_nothing_that_a_worker_writes_to_the_board_ends_whoever_reads_it(word: int) -> None:
    board = Scoreboard(1, 6)
    queue = QueueOfPool(name="run/queue", layout=Layout("/nowhere"))
    shared: Any = SimpleNamespace(
        board=board,
        queues=(queue,),
        host=SimpleNamespace(label="here"),
        supervisor=1,
        project="/",
        pidfile="",
    )
    workers, rates = WorkerTable(board), Rates(board)
    board.words[Header.USED] = 2
    for slot in range(2):
        base = board.slot(slot)
        board.words[base + SlotWord.KIND] = ProcessKind.WORKER
        workers.add_worker(ChildProcess(pid=_NOBODY + slot, kind=ProcessKind.WORKER, slot=slot, number=slot))
    board.words[board.queue(0)] = QueueState.SERVED
    for at in range(len(board.words)):  # all of it, header, queue and the other's slot included
        board.words[at] = word
    status_record.pool_record(shared)
    rates.note(1.0)
    on_claims(board)(_NOBODY, 1)
    workers.check_slots()
    workers.enforce_deadlines(1e9)
    workers.flush_logs(1e9)
    workers.kill_holders(0)
    workers.handled()
    workers.is_all_reclaimed()
    for child in list(workers.by_pid.values()):
        workers.reap(child, signal.SIGKILL)
        assert board.words[board.slot(child.slot) + SlotWord.PID] == child.pid, (
            "whose claims are to be taken back"
        )
        board.words[board.slot(child.slot) + SlotWord.EXIT] = word
        worker_deaths.read_death(board, child.slot, None)
        board.gathered_in(child.slot)
        board.spared(child.slot, 0)
        board.forget_gathered(child.slot, 0)
        board.clear_slot(child.slot)
    assert board.workers() == []


@pytest.mark.parametrize(
    ("pool", "own", "seconds"),
    [(3600, [], 2.0), (0, [], 2.0), (0, [None, 1.0], 0.25), (4, [3600.0], 1.0), (4, [0.1], 0.2)],
)
def test_the_board_is_read_often_enough_for_the_shortest_time_limit(
    pool: float, own: list[float | None], seconds: float
) -> None:
    settings: Any = SimpleNamespace(handler_timeout_seconds=pool)
    report: Any = SimpleNamespace(reload=False, routes=[SimpleNamespace(timeout_seconds=one) for one in own])
    assert tick_seconds(settings, report) == seconds
