from __future__ import annotations

import os
import signal
import subprocess
import sys

from maildefer.host.linux import signal_stack

# Everything that can be caught comes at once, twenty times; what is written over shows when the heap is used.
STORM = """
import os, select, signal
from maildefer.host.linux import signal_stack as stackdumps
stackdumps.enable()
fatal = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}
storm = signal.valid_signals() - fatal - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT}  # a TSTP takes it back
seen = set()
for signum in storm:
    signal.signal(signum, lambda number, frame: seen.add(number))
blocks = [bytearray(2000) for _ in range(1000)]
for _ in range(20):
    signal.pthread_sigmask(signal.SIG_BLOCK, storm)
    for signum in storm:
        os.kill(os.getpid(), signum)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, storm)
    select.epoll().poll(0)
    del blocks[::2]
    blocks += [bytearray(3000) for _ in range(500)]
print("all" if seen == storm else sorted(storm - seen))
"""
DEATH = """
import ctypes
from maildefer.host.linux import signal_stack as stackdumps
stackdumps.enable()
def struck():
    ctypes.string_at(0)
struck()
"""


def test_every_signal_at_once_leaves_the_heap_whole() -> None:
    ended = subprocess.run([sys.executable, "-c", STORM], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout.strip()) == (0, "all"), ended.stderr


def test_a_death_in_c_code_shows_the_python_stack() -> None:
    ended = subprocess.run([sys.executable, "-c", DEATH], capture_output=True, text=True, timeout=60)
    assert ended.returncode < 0
    assert "in struck" in ended.stderr


def test_a_stack_overflow_in_c_code_shows_the_python_stack() -> None:
    """What the alternate stack is for: the ordinary one has no room left for the handler."""
    deep = DEATH.replace("ctypes.string_at(0)", "spiral(0)").replace(
        "def struck",
        "spiral = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda n: spiral(n + 1))\ndef struck",
    )
    deep = "import sys\nsys.setrecursionlimit(10**9)\n" + deep
    ended = subprocess.run([sys.executable, "-c", deep], capture_output=True, text=True, timeout=60)
    assert ended.returncode < 0
    assert "Fatal Python error: Segmentation fault" in ended.stderr


def test_what_a_process_dumps_outlives_it_in_its_own_region() -> None:
    dumps = signal_stack.StackDumps(3)
    for slot in (1, 2):
        if not (pid := os.fork()):
            signal_stack.enable(dumps.open(slot))
            deep(slot)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGABRT
    assert dumps.read(0) == ""
    for slot in (1, 2):
        assert dumps.read(slot).startswith("Fatal Python error: Aborted")
        assert dumps.read(slot).count(" in deep") == slot + 1
        assert "Extension modules" not in dumps.read(slot)
    dumps.clear(1)
    assert dumps.read(1) == ""
    assert dumps.read(2) != ""


def deep(levels: int) -> None:
    deep(levels - 1) if levels else os.abort()
