"""Each invariant of the design is named by at least one test, and no test names one that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DESIGN = TESTS.parent / "docs" / "design.md"
_ROW = re.compile(r"^\| I([0-9]+) \| (.+) \|$", re.MULTILINE)
_MARK = re.compile(r"pytest\.mark\.invariant\(([0-9]+)\)")


def invariants() -> dict[int, str]:
    assert DESIGN.exists(), "docs/design.md, with its table of invariants (`| I1 | text |`), is missing"
    found = {int(number): text for number, text in _ROW.findall(DESIGN.read_text(encoding="utf-8"))}
    assert found, "docs/design.md has no table of invariants (`| I1 | text |`)"
    return found


def marks() -> dict[int, list[str]]:
    """Where each invariant is named."""
    found: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        if path != Path(__file__):
            for number in _MARK.findall(path.read_text(encoding="utf-8")):
                found.setdefault(int(number), []).append(path.name)
    return found


def test_the_invariants_are_numbered_without_a_gap() -> None:
    assert sorted(invariants()) == list(range(1, len(invariants()) + 1))


@pytest.mark.slow
def test_each_invariant_is_named_by_a_test() -> None:
    unguarded = {number: text for number, text in invariants().items() if number not in marks()}
    assert unguarded == {}, "no test is marked with `@pytest.mark.invariant(number)` for these"


def test_no_test_names_an_invariant_that_is_not_in_the_design() -> None:
    unknown = {number: files for number, files in marks().items() if number not in invariants()}
    assert unknown == {}
