"""Which regular expressions are thought to take long, and that no other one does."""

from __future__ import annotations

import re

import pytest

from maildefer.matching import cost
from maildefer.matching.cost import may_take_long

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
HARMLESS = [
    "^abc$",
    "^(.*)$",
    "^(add|del)@x$",
    "^(?P<a>[a-z]+)-(?P<b>.+)@(?P<host>.+)$",
    "^(.+)-(.+)@(.+)$",
    r"^([a-z]+)-([a-z]+)-([0-9]+)-([0-9]+)@([a-z0-9.-]+)$",
    r"^[a-z0-9._%+-]+@(?:[a-z0-9-]+[.])+[a-z]{2,}$",
    r"^(.+)@((?:[a-z0-9-]+\.)+[a-z]{2,})$",
    r"^(?P<list>[^-]+)-bounces?-(?P<id>[0-9a-f]+)=(?P<of>.+)@(?P<host>.+)$",
    r"^(list)(-[a-z]+)?(\+[^@]+)?@(.+)$",
    r"^(\w+)\.(\w+)\.(\w+)\.(\w+)@(.+)$",
    "^(?:[a-z]|[0-9]|[.]x)+$",
    "^(?>a+)+$",
    "^(a++)+$",
    "^(?:a+)++x$",
]


@pytest.mark.parametrize("regex", [*CLASSIC, *STEPS_WRITTEN_OUT])
def test_what_backtracks_without_end_or_nearly_so_is_known_by_its_shape(regex: str) -> None:
    re.compile(regex)
    assert may_take_long(regex)


@pytest.mark.parametrize("regex", HARMLESS)
def test_repeats_that_end_where_the_next_thing_begins_are_harmless(regex: str) -> None:
    assert not may_take_long(regex)


@pytest.mark.parametrize("operation", ["CALL", "SUCCESS"])
def test_what_is_not_known_is_taken_for_the_worst(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "tree_of", lambda regex: ([(operation, None)], 0))
    assert may_take_long("^(abc)+$")
