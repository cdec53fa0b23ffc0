"""Views name the words of the scoreboard's records, in the units that their readers use."""

from __future__ import annotations

import pytest

from maildefer.pool.scoreboard import Header, ProcessKind, QueueWord, Scoreboard, SlotWord, State
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView, SlotView


def test_a_view_reads_and_writes_the_words_of_its_own_record_only() -> None:
    board = Scoreboard(2, 3)
    slot, queue, header = SlotView(board, 1), QueueRecordView(board, 1), HeaderView(board)
    slot.pid, queue.hosts, header.deaths = 4711, 3, 2
    assert board.words[board.slot(1) + SlotWord.PID] == 4711
    assert board.words[board.queue(1) + QueueWord.HOSTS] == 3
    assert board.words[Header.DEATHS] == 2
    assert (SlotView(board, 0).pid, SlotView(board, 2).pid, QueueRecordView(board, 0).hosts) == (0, 0, 0)
    assert sum(map(bool, board.words)) == 3


def test_times_are_seconds_in_a_view_and_integers_on_the_scoreboard() -> None:
    board = Scoreboard(1, 1)
    slot, queue = SlotView(board, 0), QueueRecordView(board, 0)
    slot.began, queue.ttl_seconds = 15_000.25, 20.0
    assert board.words[board.slot(0) + SlotWord.BEGAN] == 15_000_250_000_000
    assert board.words[board.queue(0) + QueueWord.FORMAT_TTL] == 20_000
    assert (slot.began, queue.ttl_seconds) == (15_000.25, 20.0)


def test_a_time_limit_keeps_its_milliseconds_whenever_its_handler_began() -> None:
    board = Scoreboard(1, 1)
    slot = SlotView(board, 0)
    for uptime in range(1_000, 9_000_000, 12_345):
        board.words[board.slot(0) + SlotWord.BEGAN] = began = uptime * 10**9 + 123_456_789
        board.words[board.slot(0) + SlotWord.DEADLINE] = began + 3 * 10**8
        slot.limit_seconds = slot.deadline - slot.began
        assert slot.limit_seconds == 0.3


@pytest.mark.parametrize(
    ("kind", "state", "is_worker", "is_dead"),
    [
        (ProcessKind.WORKER, State.BUSY, True, False),
        (ProcessKind.WORKER, State.DEAD_CHARGED, True, True),
        (ProcessKind.WORKER, State.DEAD_UNCHARGED, True, True),
        (ProcessKind.KEEPER, State.STARTING, False, False),
        (ProcessKind.FREE, State.STARTING, False, False),
    ],
)
def test_a_slot_says_whether_a_worker_has_it_and_whether_that_is_dead(
    kind: ProcessKind, state: State, is_worker: bool, is_dead: bool
) -> None:
    board = Scoreboard(1, 1)
    slot = SlotView(board, 0)
    slot.kind, slot.state = kind, state
    assert (slot.is_worker, slot.is_dead) == (is_worker, is_dead)


def test_the_queue_of_the_tokens_is_known_from_the_first_token_on() -> None:
    board = Scoreboard(2, 1)
    assert HeaderView(board).token_queue is None
    board.words[Header.TOKENS] = 1
    assert HeaderView(board).token_queue == 0
