"""What `make mutants` changes, and that its lists are about code that is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation import __main__ as run
from tests.mutation.changes import changes

SOURCE = b'''"""Text 1."""
LIMIT = 36 * 60
def keep(names: list[int], at: float = 0.5) -> bool:
    if TYPE_CHECKING:
        at = 7
    assert at > 1
    events.emit("told", at=9)
    names.append(3)
    if not names or at >= LIMIT:
        raise ValueError
    return len(names) == 2
class Each:
    def all(self):
        for _ in range(2):
            continue
        self.count += 1
        return True
'''


def test_each_decision_of_a_module_is_changed_and_what_runs_for_nobody_is_not() -> None:
    found = [
        (change.line, change.function, change.before, change.after) for change in changes("m.py", SOURCE)
    ]
    assert found == [
        (2, "", "36", "37"),
        (2, "", "36 * 60", "(36 // 60)"),
        (2, "", "60", "61"),
        (3, "keep", "0.5", "1.5"),
        (8, "keep", "names.append(3)", "pass"),
        (8, "keep", "3", "4"),
        (9, "keep", "not names", "(names)"),
        (9, "keep", "not names or at >= LIMIT", "(not names and at >= LIMIT)"),
        (9, "keep", "at >= LIMIT", "(at > LIMIT)"),
        (10, "keep", "raise ValueError", "pass"),
        (11, "keep", "return len(names) == 2", "return None"),
        (11, "keep", "len(names) == 2", "(len(names) != 2)"),
        (11, "keep", "2", "3"),
        (14, "Each.all", "2", "3"),
        (15, "Each.all", "continue", "break"),
        (16, "Each.all", "self.count += 1", "self.count = 1"),
        (16, "Each.all", "1", "2"),
        (17, "Each.all", "True", "False"),
    ]


def test_each_change_is_code_again_and_no_other_place_is_touched() -> None:
    for change in changes("m.py", SOURCE):
        made = change.made(SOURCE)
        assert ast.dump(ast.parse(made)) != ast.dump(ast.parse(SOURCE)), change
        assert made.startswith(SOURCE[: change.start])
        assert made.endswith(SOURCE[change.end :])


def test_changes_that_look_the_same_are_told_apart_and_no_line_tells_one() -> None:
    source = b"def f(a):\n    return a < 1, a < 1\n"
    below = b"import os\n\n" + source
    one, other = [change for change in changes("m.py", source) if change.before == "a < 1"]
    assert (one.nth, other.nth) == (1, 2)
    assert [change.identity for change in changes("m.py", below)] == [
        c.identity for c in changes("m.py", source)
    ]


def test_all_that_is_accepted_is_there_still_and_has_its_reason() -> None:
    """Who edits such a line judges it anew."""
    for accepted in run._accepted():
        path = accepted["path"]
        there = {change.identity for change in changes(path, (run.ROOT / path).read_bytes())}
        assert run._identity(accepted) in there, accepted
        assert len(accepted["reason"]) > 20, accepted


@pytest.mark.parametrize("path", run._files(run._plan(), ""))
def test_each_file_has_tests_that_are_asked(path: str) -> None:
    stages = run._tests(run._plan(), path)
    assert stages
    named = [test for stage in stages if stage[0] != "simulation" for test in stage if test != "lifecycle"]
    assert all(Path(run.ROOT, test.partition("::")[0]).exists() for test in named)
