from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

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
from maildefer.handling.results import outcome_of
from maildefer.message.smtp_error import SMTPError

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


@pytest.mark.parametrize("name", ["at", "until"])
@pytest.mark.parametrize("given", [datetime(2030, 1, 1), 1893456000, "2030-01-01"])
def test_a_time_without_its_zone_is_refused(name: str, given: Any) -> None:
    with pytest.raises(ValueError, match=rf"Defer\({name}=.*with its zone"):
        Defer("later", **{name: given})


def test_seconds_and_a_time_together_are_refused() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        Defer("later", after=1, at=datetime(2030, 1, 1, tzinfo=UTC))


def test_the_times_that_a_handler_gives_are_in_the_outcome() -> None:
    zone = timezone(timedelta(hours=2))
    asked = Defer("later", at=datetime(2030, 1, 1, 2, tzinfo=zone), until=datetime(2030, 1, 2, tzinfo=UTC))
    assert outcome_of(asked, "m") == Deferred("later", at=1893456000.0, until=1893542400.0)


def test_reject_carries_its_reason() -> None:
    assert Reject("no such blog").reason == "no such blog"


def test_outcomes_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Deferred("later").reason = "sooner"  # type: ignore[misc]


@pytest.mark.parametrize("after", ["60", timedelta(seconds=60)])
def test_defer_refuses_what_are_no_seconds(after: Any) -> None:
    with pytest.raises(ValueError, match="give seconds"):
        Defer(after=after)


@pytest.mark.parametrize("reason", [60, 0.5, timedelta(minutes=1)])
def test_defer_refuses_seconds_in_place_of_its_reason(reason: Any) -> None:
    with pytest.raises(TypeError, match=r"write Defer\(after="):
        Defer(reason)


def test_a_code_is_a_reason_to_reject() -> None:
    assert Reject(550).reason == "550"  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Defer, Reject])
def test_a_reason_that_is_none_is_the_usual_one(kind: Any) -> None:
    outcome = outcome_of(kind(None), "m")
    assert isinstance(outcome, Deferred | Buried)
    assert outcome.reason.endswith(" by the handler")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("no", "no"),
        (b"bytes \xff", "bytes \\xff"),
        (OSError("down"), "down"),
        ("x" * 200_000, "x" * 1999 + "…"),
    ],
)
@pytest.mark.parametrize("kind", [Defer, Reject])
def test_a_reason_is_a_text_of_bounded_length(kind: Any, reason: object, said: str) -> None:
    assert kind(reason).reason == said


class Later(Defer):
    """Forgets its base class."""

    def __init__(self) -> None:
        pass


class Refused(SMTPError):
    def __str__(self) -> str:
        return self.missing  # type: ignore[attr-defined, no-any-return]


class Untold(Exception):
    __str__ = Refused.__str__


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Later(), "AttributeError: 'Later' object has no attribute 'at'"),
        (Refused(550, "no"), "AttributeError: 'Refused' object has no attribute 'missing'"),
        (SMTPError("550", "no"), "TypeError: "),  # type: ignore[arg-type]
        (Untold(), "<exception str() failed>"),
    ],
)
def test_an_exception_whose_class_is_broken_is_a_failure(fault: Exception, error: str) -> None:
    ended = outcome_of(fault, "m")
    assert isinstance(ended, Deferred)
    assert error in str(ended.error)
