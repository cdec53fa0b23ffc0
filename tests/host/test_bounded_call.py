from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maildefer.errors import MaildeferError, NoSpace, QueueMissing
from maildefer.host import bounded_call as module
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.identity import pid_exists


def sleep_for_ever() -> None:
    while True:
        signal.pause()


def test_what_the_function_returns_comes_back() -> None:
    assert bounded(lambda: {"pid": os.getpid() != 0, "data": b"x" * 300_000}) == {
        "pid": True,
        "data": b"x" * 300_000,
    }


def test_the_function_runs_in_another_process() -> None:
    assert bounded(os.getppid) == os.getpid()


def test_a_function_that_hangs_is_left_after_its_time() -> None:
    begun = time.monotonic()
    assert bounded(sleep_for_ever, 0.2) == TimedOut(0.2)
    assert time.monotonic() - begun < 30


def test_a_child_that_hangs_is_killed_and_reaped_later() -> None:
    bounded(sleep_for_ever, 0.05)
    (child,) = module._abandoned
    deadline = time.monotonic() + 60
    while pid_exists(child) and time.monotonic() < deadline:
        os.sched_yield()
    assert not pid_exists(child)
    assert bounded(lambda: 1) == 1
    assert module._abandoned == []


def test_a_child_that_cannot_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: children.append((pid, signum)))  # as in D state
    begun = time.monotonic()
    assert bounded(sleep_for_ever, 0.1) == TimedOut(0.1)
    assert bounded(lambda: 2) == 2
    assert time.monotonic() - begun < 30
    monkeypatch.undo()
    ((child, signum),) = children
    assert signum == signal.SIGKILL
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    module._abandoned.clear()


def test_a_child_that_hangs_does_not_hold_our_output_open() -> None:
    code = (
        "import signal, os\n"
        "from maildefer.host.bounded_call import bounded\n"
        "os.kill = lambda *a: None\n"  # it can't be killed
        "pid = os.getpid()\n"
        "def hang():\n"
        "    signal.alarm(100)\n"
        "    while True: signal.pause()\n"
        "print(bounded(hang, 0.1), flush=True)\n"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "TimedOut(seconds=0.1)\n"
    assert time.monotonic() - begun < 60, "whoever read our output waited for the child"


def test_exceptions_come_back_as_they_were_as_far_as_they_can() -> None:
    def missing_file() -> None:
        open("/nowhere/at/all", "rb").close()

    def missing_queue() -> None:
        raise QueueMissing("/srv/queue")

    def no_space() -> None:
        raise NoSpace("/srv/queue", OSError(28, "No space left on device"))

    with pytest.raises(FileNotFoundError):
        bounded(missing_file)
    with pytest.raises(QueueMissing) as missing:
        bounded(missing_queue)
    assert str(missing.value) == str(QueueMissing("/srv/queue"))
    with pytest.raises(NoSpace, match="free space") as full:
        bounded(no_space)
    assert (full.value.path, full.value.errno) == ("/srv/queue", 28)


def test_what_cannot_be_pickled_is_said_in_words() -> None:
    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("no class of that name over there")

    with pytest.raises(MaildeferError, match="no class of that name"):
        bounded(fail)
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        bounded(lambda: lambda: 1)


def test_a_child_that_dies_is_an_error() -> None:
    with pytest.raises(MaildeferError, match="died"):
        bounded(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_the_childs_output_goes_nowhere(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bounded(lambda: os.write(1, b"noise"))
    assert capfd.readouterr().out == ""
