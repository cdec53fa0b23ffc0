"""The check of the structure finds what it is for, and the package passes it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.structure.__main__ import DATA, problems

SOUND = {
    "__init__.py": '"""A package."""\n',
    "lower.py": "class Lower: ...\n",
    "upper/__init__.py": '"""Holds one and two."""\n',
    "upper/one.py": "from maildefer.upper import two\nfrom maildefer.lower import Lower\n",
    "upper/two.py": "class Two: ...\n",
}


def found(root: Path, changed: dict[str, str], **data: object) -> list[str]:
    for name, text in {**SOUND, **changed}.items():
        path = root / "maildefer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    terms = {"modules_in_a_package": 2, "crowded": [], "left_out": [], "lookups": [], **data}
    return list(problems(terms, root))


def test_a_sound_package_has_no_problems(tmp_path: Path) -> None:
    assert found(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"upper/three.py": "", "upper/__init__.py": '"""one two three"""'}, "maildefer.upper has 3 modules"),
        ({"upper/__init__.py": '"""Holds one."""'}, "the docstring of maildefer.upper does not name two"),
        ({"upper/two.py": "class Lower: ..."}, "several classes are named Lower"),
        ({"upper/two.py": "from maildefer.upper import one"}, "files import each other in a circle"),
        ({"lower.py": "def f():\n    from maildefer.upper.two import Two"}, "children of maildefer import"),
    ],
)
def test_each_kind_of_problem_is_found(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    assert any(problem.startswith(said) for problem in found(tmp_path, changed))


def test_what_is_excepted_may_be_crowded_and_what_is_left_out_is_not_looked_at(tmp_path: Path) -> None:
    full = {
        "upper/three.py": "",
        "upper/__init__.py": '"""one two three"""',
        "other/__init__.py": "class Two: ...",
    }
    assert found(tmp_path, full, crowded=["maildefer.upper"], left_out=["maildefer.other"]) == []


def test_a_look_up_leads_to_a_file_that_holds_its_answer(tmp_path: Path) -> None:
    right = {"question": "where?", "file": "maildefer/lower.py", "holds": "class Lower"}
    gone = {**right, "file": "maildefer/gone.py"}
    wrong = {**right, "holds": "class Upper"}
    said = found(tmp_path, {}, lookups=[right, gone, wrong])
    assert said == [
        "where?: there is no maildefer/gone.py",
        "where?: maildefer/lower.py does not hold 'class Upper'",
    ]


@pytest.mark.slow  # and `make lint` runs it
def test_the_package_is_as_its_table_says() -> None:
    data = tomllib.loads(DATA.read_text())
    assert len(data["lookups"]) >= 20
    assert list(problems(data)) == []
