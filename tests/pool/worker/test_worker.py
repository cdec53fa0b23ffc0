"""The worker's loop, as far as it needs no pool."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.cli.commands.status import _worker as row
from maildefer.errors import MountFault
from maildefer.handling.outcomes import Deferred
from maildefer.host.working_directory import WorkingDirectory
from maildefer.pool.scoreboard import IN_HANDLER, Header, ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.status_record import worker_record
from maildefer.pool.worker.batch_group import BatchGroup
from maildefer.pool.worker.batch_worker import BatchWorker
from maildefer.pool.worker.claim_slots import GatheredSlots
from maildefer.pool.worker.worker import Worker


def test_a_dispatch_that_ends_in_a_fault_leaves_no_deadline_behind() -> None:
    """An idle worker would be killed for it, and its death charged to whatever it has in hand by then."""
    board = Scoreboard(1, 1)
    deadlines: list[int] = []
    fault = MountFault("tokens", OSError(errno.EIO, "no token"))

    class Refusing:
        def dispatch(self, message: object) -> object:
            deadlines.append(board.words[board.slot(0) + SlotWord.DEADLINE])
            raise fault

    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base = board.words, board.slot(0)
    worker._limit_bytes, worker._timeout_ns = 1 << 20, 1 << 60
    worker._forked, worker.directory = False, WorkingDirectory()
    worker._settler = worker._log = None
    returned: list[object] = []
    worker._return_claim = lambda queue, claim, fault: returned.append(fault)
    attempts = worker._attempts_at(SimpleNamespace(index=0, name="q"), Refusing())
    claim = SimpleNamespace(read=lambda limit: b"Subject: x\n\n", key="k", attempt=1, crashes=0)
    assert not attempts.make(claim, attempts.read)
    assert returned == [fault]
    assert deadlines[0] > 0
    assert board.words[board.slot(0) + SlotWord.DEADLINE] == 0


def test_nor_does_one_in_a_worker_that_gathers_and_its_message_is_in_no_handler_any_more() -> None:
    board = Scoreboard(1, 1)
    worker: Any = BatchWorker.__new__(BatchWorker)
    worker.directory = WorkingDirectory()
    worker._words, worker._base, worker._timeout_ns, worker._forked = (
        board.words,
        board.slot(0),
        1 << 60,
        False,
    )
    free = GatheredSlots.all_places(board, 0)
    slots = GatheredSlots(board, 0, ScoreboardSlot(board, 0), 0, free)
    place = slots.take_place(7, "key")
    claim: Any = SimpleNamespace(place=place)
    seen: list[int] = []

    def refuse(message: object) -> None:
        seen.extend((board.words[board.slot(0) + SlotWord.DEADLINE], board.words[place] & IN_HANDLER))
        raise MountFault("tokens", OSError(errno.EIO, "no token"))

    with pytest.raises(MountFault):
        worker._run_marked(slots, refuse, "message", [claim])
    assert all(seen)
    assert board.words[board.slot(0) + SlotWord.DEADLINE] == 0
    assert board.words[place] & IN_HANDLER == 0


def test_only_what_was_deferred_after_an_exception_is_counted_as_failed() -> None:
    board = Scoreboard(1, 1)
    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base = board.words, board.slot(0)
    worker._timeout_ns = worker._limit_bytes = 1 << 20
    worker._settler = SimpleNamespace(settle=lambda *given: "deferred")
    worker._log = SimpleNamespace(add=lambda *line, **facts: None)
    attempts = worker._attempts_at(SimpleNamespace(index=0, name="q"), SimpleNamespace(buried=None))
    claim: Any = SimpleNamespace(key="k", attempt=1, began=0.0)
    for outcome in (
        Deferred("later"),
        Deferred("in an hour", 3600),
        Deferred("boom", error="ValueError: boom"),
    ):
        attempts.settle(claim, None, outcome, "m.START")
    assert (board.words[board.slot(0) + SlotWord.DEFERRED], board.words[board.slot(0) + SlotWord.FAILED]) == (
        3,
        1,
    )
    shared: Any = SimpleNamespace(board=board, queues=[SimpleNamespace(name="q")])
    board.words[board.slot(0) + SlotWord.KIND] = ProcessKind.WORKER
    told = worker_record(shared, 0)
    assert told is not None
    assert row(told)[4] == 1


class Elsewhere:
    """What gathers a queue's messages for all workers here: this one, another that takes more, or one that can't."""

    def __init__(self, *, another: bool, takes: bool = True) -> None:
        self.another = another
        self.takes = takes
        self.passed: list[str] = []

    def is_other_leading(self) -> bool:
        return self.another

    def pass_on(self, name: str) -> bool:
        self.passed += [name] if self.takes else []
        return self.takes


@pytest.mark.parametrize(
    ("gatherer", "passed", "taken"),
    [
        (None, [], [None]),
        (Elsewhere(another=False), [], ["itself"]),
        (Elsewhere(another=True), ["name"], []),
        (Elsewhere(another=True, takes=False), [], [None]),
    ],
)
def test_a_message_is_gathered_by_one_worker_where_another_gathers_it_is_passed_on(
    gatherer: Elsewhere | None, passed: list[str], taken: list[object]
) -> None:
    worker: Any = BatchWorker.__new__(BatchWorker)
    took: list[object] = []
    worker._gathered_slots = {0: None}
    worker._leaders = {} if gatherer is None else {0: gatherer}
    worker._attempt_or_gather = lambda queue, name, by: took.append(by if by is None else "itself")
    worker._update_groups = lambda: None
    worker._attempt(SimpleNamespace(index=0), "name", None)
    assert took == taken
    assert (gatherer.passed if gatherer is not None else []) == passed


def test_what_was_gathered_is_given_back_in_a_drain_and_let_go_where_that_fails() -> None:
    """A claim that stays on the board would be taken for one in hand, and never be taken back."""
    board = Scoreboard(1, 1)
    board.words[Header.DRAINING] = 1
    worker: Any = BatchWorker.__new__(BatchWorker)
    worker._words, worker._base, worker._stopping, worker._leaders = board.words, board.slot(0), True, {}
    worker._log = SimpleNamespace(flush=lambda: None)
    ended: list[str] = []

    def refuse() -> None:
        raise MountFault("cur", OSError(errno.EIO, "no"))

    claims: list[Any] = [
        SimpleNamespace(release=lambda: ended.append("released"), abandon=lambda: ended.append("wrong")),
        SimpleNamespace(release=refuse, abandon=lambda: ended.append("let go")),
    ]
    step: Any = SimpleNamespace(name="h")
    worker._groups = {(0, "h", 0): BatchGroup(step, limit=9, lingers=True, due=9.0, claims=claims)}
    worker.serve()
    assert ended == ["released", "let go"]
    assert board.words[board.slot(0) + SlotWord.RELEASED] == 1
    assert worker._groups == {}


def test_a_worker_goes_on_gathering_for_its_host_where_messages_of_that_queue_wait_for_more() -> None:
    begun: list[tuple[int, float]] = []
    worker: Any = BatchWorker.__new__(BatchWorker)
    worker._due = 5.0
    worker._leaders = {
        index: SimpleNamespace(begin_leading=lambda due, index=index: begun.append((index, due)))
        for index in range(3)
    }
    worker._groups = {
        (0, "h", 0): SimpleNamespace(waits_for_more=True),
        (1, "h", 0): SimpleNamespace(waits_for_more=False),
        (1, "g", 2): SimpleNamespace(waits_for_more=False),
    }
    worker._keep_leading()
    assert begun == [(0, 5.0)]


@pytest.mark.parametrize(
    ("waits", "leads", "gathered"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_of_two_workers_that_begin_to_gather_at_once_one_gives_its_message_back(
    monkeypatch: pytest.MonkeyPatch, waits: bool, leads: bool, gathered: bool
) -> None:
    board = Scoreboard(1, 1)
    worker: Any = BatchWorker.__new__(BatchWorker)
    worker._words, worker._base, worker._limit_bytes = board.words, board.slot(0), 1 << 20
    worker._max_crashes, worker._groups, worker._due = 5, {}, 9.0
    step = SimpleNamespace(name="h", terms=object())
    worker._settler = worker._log = None
    queue: Any = SimpleNamespace(index=0, name="q")
    worker._attempts = [worker._attempts_at(queue, SimpleNamespace(batch_for=lambda request: step))]
    ended: list[str] = []
    asked: list[float] = []
    group = SimpleNamespace(
        due=7.0, waits_for_more=waits, add=lambda *one: ended.append("gathered"), is_full=lambda limit: False
    )
    monkeypatch.setattr(BatchGroup, "begin", lambda *facts: group)
    claim = SimpleNamespace(
        read=lambda limit: b"Subject: x\n\n",
        key="k",
        attempt=1,
        crashes=0,
        release=lambda: ended.append("released"),
    )
    gatherer = SimpleNamespace(begin_leading=lambda due: asked.append(due) or leads)
    assert worker._read_or_gather(queue, gatherer, claim) is None
    assert ended == (["gathered"] if gathered else ["released"])
    assert asked == ([7.0] if waits else [])
    assert board.words[board.slot(0) + SlotWord.RELEASED] == (not gathered)
    assert board.words[board.slot(0) + SlotWord.TAKEN] == gathered
    assert worker._due == (7.0 if gathered else 9.0)


def test_a_worker_that_has_nothing_to_do_lets_its_lines_go_says_so_and_sleeps_until_it_has() -> None:
    board = Scoreboard(1, 2)
    did: list[object] = []
    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base, worker._stopping = board.words, board.slot(1), False
    board.words[board.slot(1) + SlotWord.STATE] = State.BUSY
    worker._log = SimpleNamespace(flush=lambda: did.append("flushed"))
    worker._handle_signals = lambda: did.append("listens")
    worker._offers = SimpleNamespace(
        wait=lambda paused, seconds: did.append(
            (paused, seconds, board.words[board.slot(1) + SlotWord.STATE])
        )
    )
    worker._wait_for_offer()
    assert did == ["flushed", "listens", (False, None, State.IDLE)]
    board.words[Header.PAUSED] = 1
    worker._wait_for_offer()
    assert did[-1] == (True, None, State.IDLE)
    did.clear()
    worker._stopping = True
    worker._wait_for_offer()
    assert did == ["flushed", "listens"]


def test_lines_go_as_soon_as_the_supervisor_asks_for_them() -> None:
    worker: Any = Worker.__new__(Worker)
    did: list[object] = []
    worker._log = SimpleNamespace(flush=lambda: did.append("flushed"))
    worker.output = None
    worker._flush_lines(0, None)
    worker.output = SimpleNamespace(drain=lambda whole: did.append(("drained", whole)))
    worker._flush_lines(0, None)
    assert did == ["flushed", "flushed", ("drained", False)]
