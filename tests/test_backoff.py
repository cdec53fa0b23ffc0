"""The pauses between tries of what fails."""

from __future__ import annotations

import math

from maildefer.backoff import Backoff, backoff_seconds


def test_each_failure_in_a_row_doubles_the_pause_up_to_the_limit() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=5.0)
    assert [backoff.note_failure(now) for now in (10.0, 11.0, 13.0, 17.0, 22.0)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.not_before == 27.0


def test_a_pause_that_is_doubled_without_end_stays_a_number_and_within_its_limit() -> None:
    assert backoff_seconds(10**6, first_seconds=0.1, longest_seconds=5.0) == 5.0
    assert backoff_seconds(10**6, first_seconds=1.0, longest_seconds=math.inf) == 2.0**64
    assert backoff_seconds(0.5, first_seconds=2.0, longest_seconds=600.0) == 2.0**1.5


def test_a_success_begins_anew() -> None:
    backoff = Backoff(first_seconds=1.0, longest_seconds=5.0)
    for now in (10.0, 20.0):
        backoff.note_failure(now)
    backoff.note_success()
    assert (backoff.failures, backoff.not_before) == (0, 0.0)
    assert backoff.note_failure(30.0) == 1.0


def test_a_failure_that_lasts_for_years_still_has_a_pause() -> None:
    backoff = Backoff(failures=10**6)
    assert backoff.note_failure(0.0) == 30.0
