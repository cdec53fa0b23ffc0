"""What `status` tells of memory and time."""

from __future__ import annotations

import subprocess
import sys

from maildefer.cli.process_usage import usage_of_tree

PROGRAM = """
import os, sys
child = os.fork()
if not child:
    sys.stdin.read()
    os._exit(0)
print("up", flush=True)
sys.stdin.read()
"""


def test_a_process_and_its_children_are_counted_together():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        usage = usage_of_tree(process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert usage is not None
    assert usage.processes == 2
    assert 1_000_000 < usage.memory_bytes < 100_000_000


def test_a_process_that_has_ended_uses_nothing_that_is_known():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert usage_of_tree(process.pid) is None
