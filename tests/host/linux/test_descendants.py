"""What a process has started is found, and ended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.host.identity import pid_exists, start_time
from maildefer.host.linux.descendants import (
    ProcessEntry,
    end_below,
    end_family,
    list_processes,
    processes_below,
)
from maildefer.host.linux.pidfd import PidfdProcess
from tests.lifecycle.project import eventually

# A chain of processes, each the child of the one before; each in a session of its own where asked.
CHAIN = """
import os, sys, time
left, session = int(sys.argv[1]), sys.argv[2] == "session"
for number in range(left):
    if os.fork():
        break
    session and os.setsid()
open(f"{sys.argv[3]}/{os.getpid()}", "x").close()
time.sleep(3600)
"""


def chain(folder: Path, length: int, *, own_sessions: bool = False) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", CHAIN, str(length - 1), "session" if own_sessions else "", str(folder)]
    first = subprocess.Popen(argv, start_new_session=True)
    eventually(lambda: len(os.listdir(folder)) == length, "the chain is there")
    return first


@pytest.mark.parametrize("own_sessions", [False, True])
def test_all_below_a_process_are_found_and_ended_but_itself(tmp_path: Path, own_sessions: bool) -> None:
    first = chain(tmp_path, 4, own_sessions=own_sessions)
    try:
        pids = {int(name) for name in os.listdir(tmp_path)} - {first.pid}
        assert {one.pid for one in processes_below(first.pid)} == pids
        assert end_below(first.pid) == 3
        eventually(lambda: not any(start_time(pid) for pid in pids), "they have ended")
        assert pid_exists(first.pid)
        assert end_below(first.pid) == 0
    finally:
        first.kill()
        first.wait()


def test_a_familys_members_are_found_by_session_and_by_what_was_known_before(tmp_path: Path) -> None:
    first = chain(tmp_path, 4)
    (tmp_path / "other").mkdir()
    other = chain(tmp_path / "other", 2, own_sessions=True)
    pids = [int(name) for name in os.listdir(tmp_path) if name != "other"]
    others = [int(name) for name in os.listdir(tmp_path / "other")]
    known = processes_below(other.pid)
    for leader in (first, other):
        leader.kill()
        leader.wait()
    assert end_family(first.pid, known) == 4
    eventually(lambda: not any(start_time(pid) for pid in (*pids, *others)), "they have ended")


def test_who_has_got_an_ended_ones_pid_is_left_alone(tmp_path: Path) -> None:
    first = chain(tmp_path, 1)
    try:
        mine = list_processes()[first.pid]
        before = ProcessEntry(pid=mine.pid, parent=mine.parent, session=0, start_time=mine.start_time - 1)
        assert end_family(0x7FFFFFFF, [before]) == 0
        assert pid_exists(first.pid)
    finally:
        first.kill()
        first.wait()


def test_what_may_not_be_signalled_does_not_hold_up_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chain(tmp_path, 3)
    spared = max(one.pid for one in processes_below(first.pid))
    send = PidfdProcess.send

    def refusing(self: PidfdProcess, signum: signal.Signals) -> None:
        if self.pid == spared:
            raise PermissionError
        send(self, signum)

    monkeypatch.setattr(PidfdProcess, "send", refusing)
    try:
        assert end_below(first.pid) == 1
    finally:
        monkeypatch.undo()
        os.kill(spared, signal.SIGKILL)  # below nobody of ours any more, since its parent has ended
        first.kill()
        first.wait()
    eventually(lambda: not start_time(spared), "it has ended")
