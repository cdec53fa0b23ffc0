from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from maildefer.host.linux.prctl import boottime, die_with_parent

pytestmark = pytest.mark.lifecycle

# A parent that forks a child, tells its pid, and waits for a line before it ends.
PARENT = """
import os, sys, signal
from maildefer.host.linux.prctl import die_with_parent
parent = os.getpid()
child = os.fork()
if child == 0:
    die_with_parent(parent)
    print(os.getpid(), flush=True)
    while True:
        signal.pause()
sys.stdin.readline()
"""


def test_a_child_dies_with_its_killed_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        assert not select.select([child], [], [], 0)[0]
        parent.kill()
        parent.wait()
        try:
            assert select.select([child], [], [], 60)[0]
        finally:
            os.close(child)


def test_a_child_whose_parent_ended_before_it_could_ask_dies_at_once() -> None:
    child = os.fork()
    if child == 0:
        die_with_parent(os.getppid() + 1)  # as if the real parent had been another, and is gone
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def test_a_child_of_a_living_parent_goes_on() -> None:
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_boot_clock_runs_on() -> None:
    before = time.monotonic()
    first = boottime()
    assert first >= before - 1
    assert boottime() >= first
