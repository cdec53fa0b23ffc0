"""Locks among the processes of one host, by number; those of a process that ends are free at once."""

from __future__ import annotations

import fcntl
import os


class ProcessLocks:
    """Locks of an inherited memory file (fcntl(2), "advisory record locking"): a child of the holder holds none.

    Each call costs a system call, and none waits. For any process that has inherited the object by a fork.
    """

    def __init__(self) -> None:
        self._descriptor = os.memfd_create("maildefer-locks", os.MFD_CLOEXEC)

    def try_lock(self, number: int) -> bool:
        """Take a lock; False while another process has it. One that this process has is taken again."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
        except (BlockingIOError, PermissionError):  # EAGAIN, or EACCES: POSIX allows both
            return False
        return True

    def unlock(self, number: int) -> None:
        """Free a lock, however often it was taken."""
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)
