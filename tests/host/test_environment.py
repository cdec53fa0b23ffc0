"""What a front end's environment is made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import maildefer
from maildefer.errors import ConfigurationError
from maildefer.host import environment
from maildefer.intake import settings
from maildefer.server import SMTPReceiver

SECRET = {"MAILDEFER_PASSWORD"}
PACKAGE = Path(maildefer.__file__).parent


def test_what_is_neither_on_the_list_nor_named_is_left_out() -> None:
    given = dict.fromkeys(
        "PATH LC_TIME PYTHONPATH TZ BLOG_DB_URL AWS_SECRET PATHS MAILDEFER_DB LISTEN_FDS".split(), "x"
    )
    assert environment.passed_variables(["BLOG_DB_URL", "MISSING"], given).keys() == {
        "PATH",
        "LC_TIME",
        "PYTHONPATH",
        "TZ",
        "BLOG_DB_URL",
    }


def test_each_variable_of_our_own_that_is_no_secret_is_on_the_list() -> None:
    others = ("environment.py", "django.py")  # the latter has names of Django's settings
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name not in others)
    ours = set(re.findall(r"\b(?:MAILDEFER|SALMON)_[A-Z_]*[A-Z]\b", text))
    assert "MAILDEFER_PROJECT" in ours
    assert ours - environment.passed_variables(environ=dict.fromkeys(ours, "x")).keys() == SECRET


@pytest.mark.parametrize("said", [{"A": "b"}, 7, ["A=b"], ["a b"], [""], [7], ["BLOG_DB_URL", None]])
def test_what_is_no_list_of_names_is_a_configuration_error(said: object) -> None:
    with pytest.raises(ConfigurationError, match=r"environment is .*: give names of variables, such as"):
        settings.environment({"environment": said})


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({}, ()),
        ({"environment": None}, ()),
        ({"environment": "A"}, ("A",)),
        ({"environment": ["B", "A"]}, ("A", "B")),
    ],
)
def test_names_are_taken_as_they_are_said(said: dict[str, object], names: tuple[str, ...]) -> None:
    assert settings.environment(said) == names


def test_a_boot_modules_receiver_takes_them_too_and_refuses_nonsense(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="environment"):
        SMTPReceiver(port=0, queue=str(tmp_path / "queue"), environment=["A=b"])
