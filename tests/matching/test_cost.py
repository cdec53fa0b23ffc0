"""Which regular expressions are matched under a limit, and that all that may take long are."""

from __future__ import annotations

import re

import pytest

from maildefer.matching import index
from maildefer.matching.cost import LENGTH, may_take_long
from maildefer.matching.index import limited

CLASSIC = [
    "^(a+)+$",
    "^(a|aa)+$",
    "^(?:a|ab|b)*$",
    "^(.*)*x$",
    r"^([a-z]+)*\d$",
    r"^([a-z]*)*\d$",
    "^(a?){30}a{30}$",
    "^((a*)b?)*$",
    "(?x)^(a+) +$",
    "^(?:a|aa){2,}$",
    "^(a*?)*?$",
    "^(?:a?b?)*x$",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    "^(.*?,){11}P$",
    "^(a+){10}$",
    "^(?=(a+)+$)a",
    "^a(?!(a+)+$)",
    "^(?>(a+)+$)",
    "^(?:(a+)+b)?+$",
    "^(?:(a)|b|(?(1)c|a))*$",
]
STEPS_WRITTEN_OUT = [
    "^(.+)(.+)(.+)(.+)@x$",
    r"^\s*\s*\s*\s*x$",
    "^.*.*.*.*x$",
    "^" + "a?" * 30 + "a{30}$",
    "^" + "(a?)" * 30 + "$",
    "^" + ".{0,19}" * 7 + "x$",
    "^" + "(?:a|ab|b)" * 40 + "x$",
    r"^(.+)(.+)(.+)\1\1x$",
    "^(.+)(.+)(.+)(a{0,19})x$",
    "^(.+)(.+)(.+)(?=" + "a" * 150 + "b)",
    "^(.+)(.+)(.+)(?=.*x)",
    "^(?:(?:(?:a|ab|.b){19}){19}){19}.*x$",  # more ways than a number can hold
    "^" + "\u212a*k*" * 3 + "x$",  # the sign for kelvin is a k to `re`
    "^" + "[\u0130-\u0131]*i*" * 3 + "x$",  # and these are an i
    "^" + "[^a-z]*[^\\W\\d_]*" * 3 + "x$",
    "(?m)^([^@]+$)([^@]+$)([^@]+$)([^@]+$)x",
    r"^(?s:.+)$(?s:.+)$(?s:.+)$(?s:.+)$x",
]
SIMPLE = [
    "^abc$",
    "^(.*)$",
    "^(add|del)@x$",
    "^(?P<a>[a-z]+)-(?P<b>.+)@(?P<host>.+)$",
    "^(.+)-(.+)@(.+)$",
    r"^(?P<post_name>[a-z0-9][a-z0-9.]+)@osb\.(?P<host>[a-z0-9.-]+)$",
]
# Of three choices in a row: as many ways as there can be, and what is compared in each of them.
WORST = [("^(.+)(.+)(.+)" + "a" * length + "b$", "a" * LENGTH) for length in (0, 40, 120)]


@pytest.mark.parametrize("regex", [*CLASSIC, *STEPS_WRITTEN_OUT])
def test_what_backtracks_without_end_or_nearly_so_is_known_by_its_shape(regex: str) -> None:
    re.compile(regex)
    assert may_take_long(regex)


@pytest.mark.parametrize("regex", SIMPLE)
def test_a_few_repeats_in_a_row_are_harmless(regex: str) -> None:
    assert not may_take_long(regex)


@pytest.mark.parametrize(("regex", "text"), WORST)
@pytest.mark.slow
def test_the_worst_of_what_is_harmless_comes_to_an_end(
    regex: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "LIMIT_SECONDS", 20)  # far beyond a second, on any machine
    assert not may_take_long(regex)
    assert limited(lambda: re.match(regex, text), "route", text) is None


def test_literal_text_that_would_be_compared_in_too_many_ways_is_not_harmless() -> None:
    assert may_take_long("^(.+)(.+)(.+)" + "a" * 200 + "b$")
