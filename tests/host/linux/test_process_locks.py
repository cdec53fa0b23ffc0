from __future__ import annotations

import os
import signal

from maildefer.host.linux.process_locks import ProcessLocks


def in_a_child(locks: ProcessLocks, number: int) -> bool:
    """Whether a forked child gets the lock; the child ends."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if locks.try_lock(number) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_lock_is_one_processs_until_it_is_unlocked() -> None:
    locks = ProcessLocks()
    assert locks.try_lock(3)
    assert locks.try_lock(3)
    assert not in_a_child(locks, 3)
    assert in_a_child(locks, 4)
    locks.unlock(3)
    assert in_a_child(locks, 3)
    locks.unlock(3)


def test_a_process_that_is_killed_holds_no_lock() -> None:
    locks, (reader, writer) = ProcessLocks(), os.pipe()
    pid = os.fork()
    if pid == 0:
        locks.try_lock(1 << 32)
        os.write(writer, b"held")
        signal.pause()
    os.read(reader, 4)
    assert not locks.try_lock(1 << 32)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert locks.try_lock(1 << 32)


def test_a_child_that_ends_leaves_its_parents_locks_alone() -> None:
    locks = ProcessLocks()
    locks.try_lock(7)
    assert in_a_child(locks, 8)
    assert not in_a_child(locks, 7)
