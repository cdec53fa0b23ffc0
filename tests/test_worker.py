"""The worker's loop, as far as it needs no pool."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.pool.board import Board, S
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
    worker._forked = False
    worker._dispatchers = [Refusing()]
    claim = SimpleNamespace(read=lambda limit: b"Subject: x\n\n", key="k", attempt=1)
    with pytest.raises(MountFault):
        worker._handle(SimpleNamespace(index=0, name="q"), claim)
    assert deadlines[0] > 0
    assert board.words[board.slot(0) + S.DEADLINE] == 0
