"""The rate of settled messages, from the board."""

from __future__ import annotations

from maildefer.pool.scoreboard import Header, Scoreboard, SlotWord
from maildefer.pool.status_record import Rates


def settle(board: Scoreboard, slot: int, pid: int, settled: int) -> None:
    base = board.slot(slot)
    board.words[Header.USED] = max(board.words[Header.USED], slot + 1)
    board.words[base + SlotWord.PID], board.words[base + SlotWord.HANDLED] = pid, settled


def test_one_look_tells_no_rate():
    rates = Rates(Scoreboard(1, 2))
    rates.note(0.0)
    assert rates.per_second() is None


def test_one_message_in_the_first_tenth_of_a_second_is_no_rate():
    board = Scoreboard(1, 1)
    rates = Rates(board)
    rates.note(0.0)
    settle(board, 0, 11, 1)
    assert rates.noted(0.1) is None
    assert rates.noted(1.0) == 1.0


def test_the_rate_is_that_of_all_workers_together():
    board = Scoreboard(1, 2)
    rates = Rates(board)
    rates.note(0.0)
    settle(board, 0, 11, 30), settle(board, 1, 12, 10)
    rates.note(4.0)
    assert rates.per_second() == 10.0


def test_a_worker_in_the_place_of_another_counts_from_zero():
    board = Scoreboard(1, 1)
    settle(board, 0, 11, 1000)
    rates = Rates(board)
    rates.note(0.0)
    settle(board, 0, 12, 5)
    rates.note(1.0)
    assert rates.per_second() == 5.0


def test_what_was_long_ago_is_forgotten():
    board = Scoreboard(1, 1)
    rates = Rates(board)
    rates.note(0.0)
    settle(board, 0, 11, 1000)
    for second in range(1, 40):
        rates.note(float(second))
    assert rates.per_second() == 0.0
    assert len(rates._notes) < 15
