"""Long commands say on a terminal how far they are, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.maildir.layout import create_queue
from maildefer.queue import Queue
from tests.support.screen import ROOT, TerminalUser

pytestmark = pytest.mark.lifecycle

SLOW = """
import time
from maildefer.cli import progress
from maildefer.maildir.operator import entries
progress._QUICK_SECONDS = progress._DRAWN_SECONDS = 0.0
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    queue = Queue(create_queue(str(tmp_path / "q")).path)
    for _ in range(5):
        queue.push(b"Subject: x\n\nhello\n", sender="a@b.example", recipient="c@d.example")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(("queue", "delete", "q", "--all", "--yes"), b"deleted"), (("doctor", "."), b"races for a file")],
)
def test_on_a_terminal_a_command_shows_how_far_it_is(
    folder: Path, arguments: tuple[str, ...], shown: bytes
) -> None:
    user = TerminalUser(folder, *arguments, code=SLOW)
    assert user.ended() == 0
    assert shown in user.written
    assert user.is_restored()
    user.close()


def test_on_a_pipe_nothing_is_shown_and_nothing_imported(folder: Path) -> None:
    code = f"{SLOW}import sys, atexit\nsys.argv[1:] = ['queue', 'delete', 'q', '--all', '--yes']\n"
    code += "atexit.register(lambda: print('rich' in sys.modules))\nfrom maildefer.cli import main\nmain()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert told.stderr == "5 entries deleted\n"
    assert told.stdout.splitlines()[5:] == ["False"]
