"""`maildefer top` on a real terminal of 80 columns and 24 lines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator.pause_mark import read_pause_mark
from tests.cli.live.test_letters import bury
from tests.support.screen import TerminalUser

pytestmark = pytest.mark.lifecycle

HOSTILE = "\x1b]0;taken\x07\x1b[2J\x1b[31m[red]\u202e"
HANGS = """
import time
from maildefer.cli import status_survey
from maildefer.cli.live import letters, watch
status_survey.read_queue_status = lambda *_: time.sleep(600)
letters.look_into_queue = lambda *_: time.sleep(600)
"""
FAILS = """
from maildefer.cli.live import watch
def fail(*_, **__):
    raise RuntimeError("it broke")
watch.overview_of = fail
"""

Top = Callable[..., TerminalUser]


@pytest.fixture
def queue(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "q"))


@pytest.fixture
def top(tmp_path: Path) -> Iterator[Top]:
    opened: list[TerminalUser] = []

    def begin(code: str = "", *arguments: str) -> TerminalUser:
        environ = {"MAILDEFER_RUNTIME_DIR": str(tmp_path / "runtime")}
        opened.append(TerminalUser(tmp_path, "top", *(arguments or ("q",)), environ=environ, code=code))
        return opened[-1]

    yield begin
    for one in opened:
        one.close()


def test_a_message_is_found_by_keys_and_does_nothing_to_the_terminal(queue: Layout, top: Top) -> None:
    bury(queue, f"KeyError: {HOSTILE}", f"Subject: {HOSTILE}\n\nbody\n".encode())
    user = top()
    first = user.until(lambda text: "nobody serves" in text)
    assert "q: quit" in first.splitlines()[-1]
    assert len(first.splitlines()) == 24
    user.press("\r")
    user.until(lambda text: "q: dead, 1" in text and "KeyError" in text)
    user.press("\r")
    shown = user.until(lambda text: "maildefer dead requeue q" in text)
    assert "reason: KeyError: \\x1b]0;taken\\x07" in shown
    user.press("\x1b[6~\x1b[6~")
    user.until(lambda text: "body" in text)
    user.press("\x1b[H")
    user.until(lambda text: "maildefer dead requeue q" in text)
    user.press("\x1b[F")
    user.until(lambda text: "body" in text)
    user.press("\x1b\x1b")
    user.until(lambda text: "nobody serves" in text)
    user.press("q")
    assert (user.ended(), user.is_restored()) == (0, True)
    assert b"\x1b]0;" not in user.written
    assert "\u202e".encode() not in user.written


def test_a_queue_is_paused_and_resumed_by_keys_once_that_is_confirmed(queue: Layout, top: Top) -> None:
    user = top()
    user.until(lambda text: "nobody serves" in text)
    user.press("p")
    user.until(lambda text: "pause q on all hosts?" in text)
    user.press("n")
    user.until(lambda text: "q: quit" in text)
    assert read_pause_mark(queue) is None
    for key, told in (("p", "no host claims from it"), ("r", "goes on")):
        user.press(f"{key}y")
        user.until(lambda text, told=told: told in text)  # type: ignore[misc]
        assert (read_pause_mark(queue) is not None) is (key == "p")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    queue: Layout, top: Top, signum: signal.Signals
) -> None:
    user = top()
    user.until(lambda text: "q: quit" in text)
    os.kill(user.pid, signum)
    assert (user.ended(), user.is_restored()) == (0, True)


def test_an_error_of_ours_is_told_on_a_terminal_as_before(queue: Layout, top: Top) -> None:
    user = top(FAILS)
    assert user.ended() == 1
    assert user.is_restored()
    assert "it broke" in user.text


def test_it_fits_a_terminal_of_any_size(queue: Layout, top: Top) -> None:
    user = top()
    user.until(lambda text: "nobody serves" in text)
    for columns, lines in ((40, 8), (132, 43), (10, 2)):
        user.resize(columns, lines)
        user.until(lambda text: text.startswith("rate") and text.splitlines()[-1].startswith("q: quit"))
        assert len(user.rows) == lines
    user.press("q")
    assert (user.ended(), user.is_restored()) == (0, True)


def test_a_mount_that_hangs_holds_up_no_key(queue: Layout, top: Top) -> None:
    user = top(HANGS)
    user.until(lambda text: "hangs" in text)
    user.press("\r")
    user.until(lambda text: "no answer within 5 s" in text)
    user.press("q")
    assert (user.ended(), user.is_restored()) == (0, True)


def test_without_a_terminal_it_says_what_to_use_instead(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maildefer", "top"]
    told = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (told.returncode, "`maildefer status`" in told.stderr) == (1, True)
