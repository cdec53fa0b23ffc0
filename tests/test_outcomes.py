from __future__ import annotations

import itertools

import pytest

from maildefer.handling.outcomes import (
    ACKED,
    Buried,
    Defer,
    Deferred,
    HandedOff,
    Outcome,
    Postponed,
    Reject,
    worst,
)

FROM_WORST: list[Outcome] = [
    Postponed(1, "token taken"),
    Buried("rejected"),
    Deferred("boom", error="ValueError: boom"),
    Deferred("later"),
    HandedOff("workers.index", "START"),
    ACKED,
]


@pytest.mark.parametrize(("worse", "better"), list(itertools.combinations(FROM_WORST, 2)))
def test_reject_exception_defer_handoff_and_ack_count_in_this_order(worse: Outcome, better: Outcome) -> None:
    assert worst(worse, better) is worse
    assert worst(better, worse) is worse


def test_of_two_equal_outcomes_the_first_counts() -> None:
    assert worst(Deferred("first"), Deferred("second")) == Deferred("first")


def test_defer_carries_its_reason_and_time() -> None:
    asked = Defer("blog database is down", after=60)
    assert (asked.reason, asked.after, str(asked)) == ("blog database is down", 60, "blog database is down")
    assert Defer("soon").after is None


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf")])
def test_defer_refuses_a_time_that_never_comes(after: float) -> None:
    with pytest.raises(ValueError, match="give seconds"):
        Defer("later", after=after)


def test_reject_carries_its_reason() -> None:
    assert Reject("no such blog").reason == "no such blog"


def test_outcomes_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Deferred("later").reason = "sooner"  # type: ignore[misc]
