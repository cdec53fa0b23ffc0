"""docs/security.md names a test for what it says, and each attack that is tried stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
NAMED = set(re.findall(r"`(test_\w+)`", PAGE))
ATTACKS = ("attacks", "floods", "web_floods", "smuggling", "kills", "full_disk", "fuzz", "trust")
HEADS = ("| | what | shown by |", "| --- | --- | --- |")


def functions(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


def test_every_test_that_the_page_names_is_there() -> None:
    there = {name for path in TESTS.rglob("test_*.py") for name in functions(path)}
    assert NAMED - there == set()


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_that_is_tried_stands_on_the_page(attack: str) -> None:
    tried = functions(TESTS / "security" / f"test_{attack}.py")
    assert tried
    assert tried - NAMED == set()


def test_every_line_of_who_may_do_what_names_a_test_of_somebody_who_tries_it() -> None:
    lines = PAGE.partition("## Who may do what")[2].partition("\n## ")[0].splitlines()
    rows = [line for line in lines if line.startswith("| can")]
    assert len(rows) > 30
    assert [line for line in lines if line.startswith("| ") and line not in (*rows, *HEADS)] == []
    assert [row for row in rows if not re.search(r"\| `test_[^|]+ \|$", row)] == []


def test_every_row_of_the_page_that_says_what_happens_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.count("|") == 4 and not line.startswith("| ---")]
    assert len(rows) > 35
    assert [row for row in rows if "`test_" not in row and "| shown by |" not in row] == []
