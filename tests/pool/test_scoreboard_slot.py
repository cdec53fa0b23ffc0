"""A handler's time limit on the scoreboard: its own, or the pool's, which a message's other handlers share."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from maildefer.pool import scoreboard_slot
from maildefer.pool.scoreboard import Scoreboard, SlotWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot

POOL = 100
SECOND = 1_000_000_000


class Course:
    """A worker's slot through a message's handlers, on a clock of its own; all in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000
        clock = SimpleNamespace(
            clock_gettime_ns=lambda which: self.now * SECOND, CLOCK_BOOTTIME=time.CLOCK_BOOTTIME
        )
        monkeypatch.setattr(scoreboard_slot, "time", clock)
        board = Scoreboard(1, 1)
        self.words, self.base = board.words, board.slot(0)
        self.slot = ScoreboardSlot(board, 0)

    def begin_message(self) -> None:
        """As a worker does before the handlers run."""
        self.words[self.base + SlotWord.HANDLER_LENGTH] = 0
        self.words[self.base + SlotWord.BEGAN] = self.now * SECOND
        self.words[self.base + SlotWord.DEADLINE] = (self.now + POOL) * SECOND

    def left(self, seconds: float | None) -> float:
        """Begin a handler with that limit; how long it may take."""
        self.slot.running("m.HANDLER", seconds)
        return self.words[self.base + SlotWord.DEADLINE] / SECOND - self.now


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Course:
    found = Course(monkeypatch)
    found.begin_message()
    return found


@pytest.mark.parametrize("seconds", [5, 5000])
def test_a_handler_has_its_own_time_from_its_own_start(course: Course, seconds: int) -> None:
    course.now += 30
    assert course.left(seconds) == seconds
    assert course.words[course.base + SlotWord.BEGAN] == course.now * SECOND


def test_handlers_without_a_limit_share_the_pools(course: Course) -> None:
    assert course.left(None) == POOL
    course.now += 30
    assert course.left(None) == POOL - 30


def test_the_time_of_handlers_with_their_own_limit_is_not_the_others(course: Course) -> None:
    course.now += 30
    assert course.left(5000) == 5000
    course.now += 4000
    assert course.left(7) == 7
    course.now += 6
    assert course.left(None) == POOL - 30
    course.now += 10
    assert course.left(None) == POOL - 40
    assert course.left(7) == 7
    assert course.left(None) == POOL - 40


def test_the_next_message_begins_with_the_whole_limit(course: Course) -> None:
    course.now += 99
    course.left(5000)
    course.begin_message()
    assert course.left(None) == POOL
    course.now += 10
    assert course.left(None) == POOL - 10


def test_a_handler_without_a_limit_reads_no_clock(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoreboard_slot, "time", None)
    assert course.left(None) == POOL


def test_how_often_a_handler_may_exceed_its_limit_is_told_as_long_as_it_runs(course: Course) -> None:
    def most() -> int:
        return course.words[course.base + SlotWord.MOST_TIMEOUTS]

    course.slot.running("m.HANDLER", 1.0, 2)
    assert most() == 2
    course.slot.running("m.BESIDE")
    assert most() == 0
    course.slot.running("m.HANDLER", 1.0, 2)
    course.begin_message()
    course.slot.running("m.BESIDE")
    assert most() == 0, "nor for the next message"


def test_a_handler_that_is_cancelled_first_is_ended_after_its_grace_and_for_its_limit(course: Course) -> None:
    def limit() -> int:
        return course.words[course.base + SlotWord.LIMIT]

    course.slot.running("m.HANDLER", 2.0, 0, 5.0)
    assert course.words[course.base + SlotWord.DEADLINE] == (course.now + 7) * SECOND
    assert limit() == 2000
    course.begin_message()
    assert course.left(None) == POOL
    assert limit() == 0, "the pool's, which the deadline tells"
