from __future__ import annotations

import pytest

from maildefer.handling.outcomes import Deferred
from maildefer.handling.retry import RetryPolicy

POLICY = RetryPolicy()
DAYS = 86400.0
FAILED = Deferred("boom", error="ValueError: boom")


def middle() -> float:
    return 0.5


def test_delays_double_from_one_minute_to_four_hours() -> None:
    delays = [POLICY.next(failures, 0, middle) for failures in range(1, 12)]
    assert delays == [60, 120, 240, 480, 960, 1920, 3840, 7680, 14400, 14400, 14400]


def test_jitter_spreads_the_delay_to_both_sides() -> None:
    assert POLICY.next(1, 0, lambda: 0.0) == pytest.approx(54)
    assert POLICY.next(1, 0, lambda: 1.0) == pytest.approx(66)


def test_the_twentieth_failure_is_the_last() -> None:
    assert POLICY.next(19, 0, middle) is not None
    assert POLICY.next(20, 0, middle) is None


def test_a_failure_after_the_lifetime_is_the_last() -> None:
    assert POLICY.next(5, 5 * DAYS - 1, middle) is not None
    assert POLICY.next(5, 5 * DAYS, middle) is None


def test_an_old_message_may_still_fail_five_times() -> None:
    assert POLICY.next(4, 50 * DAYS, middle) == 480


def test_a_huge_number_of_failures_does_not_overflow() -> None:
    assert RetryPolicy(max_attempts=10**6).next(5000, 0, middle) == 14400


def test_a_handler_gets_the_delay_it_asks_for() -> None:
    assert POLICY.delay(Deferred("later", 7), 3, 0, 0, middle) == 7
    assert POLICY.delay(Deferred("at once", 0), 3, 0, 0, middle) == 0


def test_a_handler_that_asks_without_a_time_gets_the_backoff() -> None:
    assert POLICY.delay(Deferred("later"), 3, 0, 0, middle) == 240


def test_a_time_that_a_handler_asks_for_has_no_end_by_age_or_number() -> None:
    assert POLICY.delay(Deferred("later", 7), 500, 0, 500 * DAYS, middle) == 7
    assert POLICY.delay(Deferred("later", at=1030.0), 500, 0, 500 * DAYS, middle, 1000.0) == 30


def test_a_time_that_has_passed_is_now() -> None:
    assert POLICY.delay(Deferred("later", at=900.0), 1, 0, 0, middle, 1000.0) == 0


def test_a_handler_that_gives_no_time_ends_with_the_lifetime() -> None:
    assert POLICY.delay(Deferred("later"), 500, 0, 5 * DAYS - 1, middle) == 14400
    assert POLICY.delay(Deferred("later"), 500, 0, 5 * DAYS, middle) is None


@pytest.mark.parametrize("age", [0.0, 500 * DAYS])
@pytest.mark.parametrize("asked", [Deferred("later", 30, until=1100.0), Deferred("later", until=1100.0)])
def test_the_end_that_a_handler_gives_takes_the_lifetimes_place(asked: Deferred, age: float) -> None:
    assert POLICY.delay(asked, 1, 0, age, middle, 1000.0) in (30, 60)
    assert POLICY.delay(asked, 500, 0, age, middle, 1090.0) == 10  # a last try then
    assert POLICY.delay(asked, 500, 0, age, middle, 1100.0) is None


def test_an_exception_ends_with_the_number_of_failures() -> None:
    assert POLICY.delay(FAILED, 19, 19, 0, middle) == 14400
    assert POLICY.delay(FAILED, 20, 20, 0, middle) is None


def test_what_was_deferred_on_purpose_does_not_count_against_an_exception() -> None:
    assert POLICY.delay(FAILED, 500, 1, 0, middle) == 60
    assert POLICY.delay(FAILED, 500, 1, 50 * DAYS, middle) == 60
    assert POLICY.delay(FAILED, 500, 5, 50 * DAYS, middle) is None
