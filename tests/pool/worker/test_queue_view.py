"""Silence stops work: no claim is sent when our own last good beat is too old."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from maildefer.maildir.layout import create_queue
from maildefer.maildir.operator import pause_mark as marks
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.pool.pause import apply_mark
from maildefer.pool.scoreboard import QueueState, QueueWord, Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.queue_view import QueueView

LEASE = "host-0a1b2c-17-abcdef012345"
TTL_SECONDS = 45.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self, clock: int) -> int:
        assert clock == time.CLOCK_BOOTTIME
        return int(self.seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "clock_gettime_ns", clock)
    return clock


@pytest.fixture
def board() -> Scoreboard:
    board = Scoreboard(1, 1)
    board.set_lease(0, LEASE)
    board.words[board.queue(0) + QueueWord.STATE] = QueueState.SERVED
    return board


@pytest.fixture
def beat(board: Scoreboard) -> Callable[[float], None]:
    """What the keeper publishes for a beat that was sent then."""

    def publish(sent: float) -> None:
        board.words[board.queue(0) + QueueWord.CLAIM_UNTIL] = int((sent + TTL_SECONDS / 2) * 1e9)

    return publish


@pytest.fixture
def queue(tmp_path: Path, board: Scoreboard, clock: Clock) -> QueueView:
    return QueueView(
        "queue", create_queue(f"{tmp_path}/queue"), 0, board, ScoreboardSlot(board, 0), "host-0a1b2c"
    )


@pytest.mark.invariant(8)
@pytest.mark.parametrize(("age", "allowed"), [(0.0, True), (22.4, True), (22.6, False), (900.0, False)])
def test_no_claim_is_sent_with_a_beat_older_than_half_the_ttl(
    queue: QueueView, clock: Clock, beat: Callable[[float], None], age: float, allowed: bool
) -> None:
    beat(clock.seconds - age)
    assert queue.may_claim() is allowed


@pytest.mark.invariant(8)
def test_no_claim_is_sent_before_the_first_beat(queue: QueueView) -> None:
    assert not queue.may_claim()


@pytest.mark.invariant(8)
def test_claims_go_on_with_the_next_good_beat(
    queue: QueueView, clock: Clock, beat: Callable[[float], None]
) -> None:
    beat(clock.seconds)
    clock.seconds += 30
    assert not queue.may_claim()
    beat(clock.seconds - 1)
    assert queue.may_claim()


@pytest.mark.invariant(8)
def test_no_claim_is_sent_under_a_lease_that_is_not_served_yet(
    queue: QueueView, clock: Clock, board: Scoreboard, beat: Callable[[float], None]
) -> None:
    beat(clock.seconds)
    assert queue.may_claim()
    board.words[board.queue(0) + QueueWord.STATE] = QueueState.FENCED
    board.set_lease(0, LEASE.replace("17", "18"))
    assert not queue.may_claim()
    board.words[board.queue(0) + QueueWord.STATE] = QueueState.SERVED
    assert queue.may_claim()
    assert queue.claimer.lease == LEASE.replace("17", "18")


def test_a_queue_that_an_operator_has_paused_is_claimed_from_no_more_until_it_is_resumed(
    queue: QueueView, board: Scoreboard, clock: Clock, beat: Callable[[float], None]
) -> None:
    beat(clock.seconds)
    assert queue.may_claim()
    for paused, allowed in ((True, False), (False, True), (True, False)):
        clock.seconds += 1
        _mark(queue, board, paused)
        assert [queue.may_claim(), queue.may_claim()] == [allowed, allowed]


def test_conversations_go_on_under_the_lease_of_a_paused_queue(
    queue: QueueView, board: Scoreboard, clock: Clock, beat: Callable[[float], None]
) -> None:
    """Their tokens lie in the first queue, and a pause of that one is none of the others."""
    beat(clock.seconds)
    _mark(queue, board, True)
    assert queue.may_take_tokens()
    assert queue.claimer.lease == LEASE
    clock.seconds += 1
    board.set_lease(0, f"{LEASE}0")
    assert queue.may_take_tokens()
    assert queue.claimer.lease == f"{LEASE}0"
    assert not queue.may_claim()
    board.words[board.queue(0) + QueueWord.STATE] = QueueState.FENCED
    clock.seconds += 1
    assert not queue.may_take_tokens()


def _mark(queue: QueueView, board: Scoreboard, paused: bool) -> None:
    """Make the mark, or take it away, and have the keeper see that."""
    layout = queue.claimer.layout
    marks.pause_queue(layout, user="ann", host="a") if paused else marks.resume_queue(layout)
    shared = SimpleNamespace(board=board, queues=[SimpleNamespace(name="queue", layout=layout)])
    apply_mark(shared, 0, SYSTEM)  # type: ignore[arg-type]


def test_the_keeper_shows_that_entries_have_priorities(queue: QueueView, board: Scoreboard) -> None:
    _mark(queue, board, False)
    assert board.words[board.queue(0) + QueueWord.PRIORITIES] == 0
    push = Pusher(queue.claimer.layout, host="h-0a1b2c").push
    push(Planned(compose=lambda stem: [b"x"], priority="low"))
    _mark(queue, board, False)
    assert board.words[board.queue(0) + QueueWord.PRIORITIES] == 1


def test_what_has_waited_often_is_tried_again_soon_after_a_fault_and_held_longer_after_each(
    queue: QueueView,
) -> None:
    """Each postponement raises `n`, as each fault does: only what this worker has seen fail may wait for minutes."""
    assert [queue.pause_after_fault("waited", 40) for _ in range(4)] == [2, 64, 600, 600]
    pauses = [queue.pause_after_fault("new", returns) for returns in range(0, 20, 2)]
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600]
    queue.note_settled("waited")
    assert queue.pause_after_fault("waited", 44) == 2, "it has been read meanwhile"
