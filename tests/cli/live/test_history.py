from __future__ import annotations

import math

from maildefer.cli.live.history import MOST_SERIES, History, Series


def test_a_step_is_the_mean_of_what_was_noted_in_it() -> None:
    series = Series(60.0, 3)
    for now, value in ((0.0, 1.0), (59.0, 3.0), (61.0, 10.0)):
        series.note(now, value)
    assert series.means(61.0)[1:] == [2.0, 10.0]


def test_where_nothing_was_noted_for_long_there_is_a_gap() -> None:
    series = Series(60.0, 4)
    series.note(0.0, 5.0)
    series.note(180.0, 7.0)
    assert [math.isnan(mean) for mean in series.means(180.0)] == [False, True, True, False]
    assert [math.isnan(mean) for mean in series.means(300.0)] == [True, False, True, True]
    assert all(map(math.isnan, series.means(1e6)))


def test_steps_shorter_than_the_time_between_two_numbers_are_bridged() -> None:
    series = Series(0.5, 5)
    series.note(10.0, 1.0)
    series.note(12.0, 3.0)
    assert series.means(12.0) == [1.0, 1.0, 1.0, 1.0, 3.0]


def test_the_oldest_steps_are_overwritten() -> None:
    series = Series(1.0, 3)
    for second in range(10):
        series.note(second, second)
    assert series.means(9.0) == [7.0, 8.0, 9.0]


def test_of_too_many_series_the_one_that_was_noted_longest_ago_is_forgotten() -> None:
    history = History(step_seconds=1.0, length=2)
    for number in range(MOST_SERIES):
        history.note(1.0, str(number), 1.0)
    history.note(1.0, "0", 1.0)
    history.note(1.0, "one more", 1.0)
    assert history.means(1.0, "1") == []
    assert history.means(1.0, "0")[-1] == history.means(1.0, "one more")[-1] == 1.0


def test_a_time_that_jumps_costs_no_more_than_the_steps_that_are_kept() -> None:
    series = Series(1.0, 3)
    for now in (1e12, 5.0, 1e15):
        series.note(now, 7.0)
        assert len(series.means(now)) == 3
    assert series.means(1e15)[-1] == 7.0
