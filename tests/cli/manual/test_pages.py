"""Manual pages, as man(1) shows them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from maildefer.cli.manual.examples import EXAMPLES
from maildefer.cli.manual.pages import _text

needs_groff = pytest.mark.skipif(shutil.which("groff") is None, reason="apt-get install groff-base")


@pytest.fixture
def pages(maildefer: Any, tmp_path: Path) -> Path:
    ended = maildefer("man", str(tmp_path / "man1"))
    assert ended.code == 0, ended.err
    return tmp_path / "man1"


def shown(path: Path) -> str:
    command = ["groff", "-man", "-ww", "-Tutf8", "-rLL=200n", "-P-cbou", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr, f"{path.name}: {done.stderr}"
    return done.stdout


def test_each_command_has_a_page_and_hidden_ones_have_none(pages: Path) -> None:
    names = set(os.listdir(pages))
    assert {f"maildefer-{path.replace(' ', '-')}.1" for path in EXAMPLES} < names
    assert names >= {"maildefer.1", "maildefer-queue.1", "maildefer-dead.1"}
    assert not names & {"maildefer-gen.1", "maildefer-queue-salmon.1"}


@needs_groff
@pytest.mark.slow
def test_all_pages_are_shown_without_a_warning(pages: Path) -> None:
    assert all(len(shown(path).splitlines()) > 10 for path in pages.iterdir())


@needs_groff
def test_a_page_tells_what_the_help_tells(pages: Path, maildefer: Any) -> None:
    told, page = (
        maildefer("queue", "hold", "--help").out,
        " ".join(shown(pages / "maildefer-queue-hold.1").split()),
    )
    options = set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", told, re.MULTILINE))
    assert len(options) > 6
    assert all(option in page for option in options)
    assert "maildefer queue hold run/queue --sender eve@spam.example" in page
    assert "nobody tries them until `unhold`." in page


@needs_groff
@pytest.mark.parametrize("text", [".SH HEAD", "'quoted'", r"a\fBb \n(.x", "a^b~c `d` - e", "it's"])
def test_no_text_is_a_request_of_troff(tmp_path: Path, text: str) -> None:
    page = tmp_path / "x.1"
    page.write_text(f'.TH "X" "1"\n.SH NAME\n{_text(text)}\n')
    assert text in shown(page)


def test_a_folder_that_can_not_be_made_is_told(maildefer: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = maildefer("man", str(tmp_path / "file" / "man1"))
    assert ended.code == 1
    assert "file/man1" in ended.err
