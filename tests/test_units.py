from __future__ import annotations

import pytest

from maildefer import units


def test_a_text_has_a_number_and_a_unit() -> None:
    texts = ["90", "90s", "15m", "6h", "2d", "1w"]
    assert [units.seconds_in(text) for text in texts] == [90, 90, 900, 21600, 172800, 604800]


@pytest.mark.parametrize("text", ["", "s", "5 m", "-5m", "1.5h", "5M", "5min", "٣m", "m5", "0x10"])
def test_a_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        units.seconds_in(text)


def test_an_argument_is_a_number_or_a_text() -> None:
    assert [units.seconds_of("after", given) for given in (0, 2.5, "5m")] == [0.0, 2.5, 300.0]


@pytest.mark.parametrize("given", [True, None, b"5m", -1, float("nan"), float("inf"), 10**12, "99999w", [5]])
def test_an_argument_that_is_no_time_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match=r"^after=.* is no time: give "):
        units.seconds_of("after", given)


def test_an_argument_may_have_a_least_value() -> None:
    assert units.seconds_of("lifetime", 1, least=1) == 1.0
    with pytest.raises(ValueError, match="give 1 or more"):
        units.seconds_of("lifetime", 0.9, least=1)


def test_a_span_is_written_as_it_is_read() -> None:
    assert [units.span(seconds) for seconds in (0, 0.5, 90, 900, 3600, 172800, 604800)] == [
        "0s",
        "0.5s",
        "90s",
        "15m",
        "1h",
        "2d",
        "1w",
    ]
