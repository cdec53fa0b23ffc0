"""The worker's loop, as far as it needs no pool."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

from maildefer.cli.live.status_words import worker_row as row
from maildefer.errors import MountFault
from maildefer.handling.outcomes import Deferred
from maildefer.host.working_directory import WorkingDirectory
from maildefer.pool.scoreboard import Header, ProcessKind, Scoreboard, SlotWord, State
from maildefer.pool.status_record import worker_record
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
    claim: Any = SimpleNamespace(
        read=lambda limit: b"Subject: x\n\n", key="k", attempt=1, crashes=0, committed=""
    )
    assert not attempts.make(claim, attempts.read)
    assert returned == [fault]
    assert deadlines[0] > 0
    assert board.words[board.slot(0) + SlotWord.DEADLINE] == 0


def test_only_what_was_deferred_after_an_exception_is_counted_as_failed() -> None:
    board = Scoreboard(1, 1)
    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base = board.words, board.slot(0)
    worker._timeout_ns = worker._limit_bytes = 1 << 20
    worker._settler = SimpleNamespace(settle=lambda *given: "deferred", layouts={})
    worker._log = SimpleNamespace(add=lambda *line, **facts: None)
    queue = SimpleNamespace(index=0, name="q", note_settled=lambda key: None)
    attempts = worker._attempts_at(queue, SimpleNamespace(buried=None))
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
    board.words[board.slot(0) + SlotWord.PID] = 7
    told = worker_record(shared, 0)
    assert told is not None
    assert row(told)[4] == 1


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
