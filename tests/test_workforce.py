"""What a worker's death means, and how long the end of a pool pauses, as far as it needs no processes."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from maildefer.maildir.system import boottime
from maildefer.pool.board import Board, Kind, S, State
from maildefer.pool.children import Child
from maildefer.pool.draining import Draining
from maildefer.pool.workforce import Workforce


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
    board = Board(1, 1)
    workforce = Workforce(board)
    child = Child(pid=7, kind=Kind.WORKER, slot=0, number=1)
    workforce.occupy(child)
    board.words[board.slot(0) + S.HELD] = board.words[board.slot(0) + S.DEADLINE] = 1
    child.killed = killed
    assert workforce.bury(child, int(by))
    assert board.words[board.slot(0) + S.STATE] == state


def test_a_supervisor_past_its_drains_deadline_still_pauses() -> None:
    shared: Any = SimpleNamespace(board=Board(1, 1), settings=SimpleNamespace(drain_seconds=0.0))
    draining = Draining(shared)
    draining.begin("asked to")
    for seconds in (0, 1, 100):
        assert 0 < draining.seconds_left(boottime() + seconds) <= 0.2
