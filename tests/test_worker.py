"""The worker's loop, as far as it needs no pool."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.cli.status import _worker as row
from maildefer.errors import MountFault
from maildefer.handling.outcomes import Deferred
from maildefer.host.working_directory import WorkingDirectory
from maildefer.pool.batching import BatchingWorker
from maildefer.pool.board import IN_HANDLER, Board, Kind, S
from maildefer.pool.gathered import GatherHand
from maildefer.pool.hand import Hand
from maildefer.pool.snapshot import of_worker
from maildefer.pool.worker import Worker


def test_a_dispatch_that_ends_in_a_fault_leaves_no_deadline_behind() -> None:
    """An idle worker would be killed for it, and its death charged to whatever it has in hand by then."""
    board = Board(1, 1)
    deadlines: list[int] = []
    fault = MountFault("tokens", OSError(errno.EIO, "no token"))

    class Refusing:
        def dispatch(self, message: object) -> object:
            deadlines.append(board.words[board.slot(0) + S.DEADLINE])
            raise fault

    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base = board.words, board.slot(0)
    worker._limit_bytes, worker._timeout_ns = 1 << 20, 1 << 60
    worker._forked, worker.directory = False, WorkingDirectory()
    worker._dispatchers = [Refusing()]
    claim = SimpleNamespace(read=lambda limit: b"Subject: x\n\n", key="k", attempt=1)
    with pytest.raises(MountFault):
        worker._handle(SimpleNamespace(index=0, name="q"), claim)
    assert deadlines[0] > 0
    assert board.words[board.slot(0) + S.DEADLINE] == 0


def test_nor_does_one_in_a_worker_that_gathers_and_its_message_is_in_no_handler_any_more() -> None:
    board = Board(1, 1)
    worker: Any = BatchingWorker.__new__(BatchingWorker)
    worker.directory = WorkingDirectory()
    worker._words, worker._base, worker._timeout_ns, worker._forked = (
        board.words,
        board.slot(0),
        1 << 60,
        False,
    )
    free = GatherHand.places(board, 0)
    hand = GatherHand(board, 0, Hand(board, 0), 0, free)
    worker._hands = {0: hand}
    place = hand.take(7, "key")
    claim: Any = SimpleNamespace(place=place)
    seen: list[int] = []

    def refuse(message: object) -> None:
        seen.extend((board.words[board.slot(0) + S.DEADLINE], board.words[place] & IN_HANDLER))
        raise MountFault("tokens", OSError(errno.EIO, "no token"))

    with pytest.raises(MountFault):
        worker._in_handler(SimpleNamespace(index=0), [claim], refuse, "message")
    assert all(seen)
    assert board.words[board.slot(0) + S.DEADLINE] == 0
    assert board.words[place] & IN_HANDLER == 0


def test_only_what_was_deferred_after_an_exception_is_counted_as_failed() -> None:
    board = Board(1, 1)
    worker: Any = Worker.__new__(Worker)
    worker._words, worker._base = board.words, board.slot(0)
    worker._dispatchers = [SimpleNamespace(buried=None)]
    worker._settler = SimpleNamespace(settle=lambda *given: "deferred")
    worker._log = SimpleNamespace(add=lambda *line, **facts: None)
    claim = SimpleNamespace(key="k", attempt=1, began=0.0)
    for outcome in (
        Deferred("later"),
        Deferred("in an hour", 3600),
        Deferred("boom", error="ValueError: boom"),
    ):
        worker._settle(SimpleNamespace(index=0, name="q"), claim, outcome, "m.START", None)
    assert (board.words[board.slot(0) + S.DEFERRED], board.words[board.slot(0) + S.FAILED]) == (3, 1)
    shared: Any = SimpleNamespace(board=board, queues=[SimpleNamespace(name="q")])
    board.words[board.slot(0) + S.KIND] = Kind.WORKER
    told = of_worker(shared, 0)
    assert told is not None
    assert row(told)[4] == 1
