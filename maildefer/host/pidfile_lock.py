"""One process for each pid file and host: a lock in the host's own runtime directory.

Not beside the pid file itself: that may be on NFS, whose locks outlive their holders. The command line takes the lock,
and then executes the process that is to keep it, which does without filelock's 11 MB.
"""

from __future__ import annotations

import os
import time
from typing import Final

import filelock

from maildefer.errors import AlreadyRunning
from maildefer.host import runtime_dir
from maildefer.host.identity import is_alive

_PATIENCE_SECONDS: Final = 2.0


def acquire_lock(pidfile: str) -> int:
    """Take the lock of a pid file; the inheritable descriptor that comes back holds it until it is closed for good.

    It survives exec, and every fork that has it keeps the lock as well: so the lock is free only when the whole tree
    is gone, or has closed it. Raises AlreadyRunning, which names the process that holds it.
    """
    path = runtime_dir.lock_path(pidfile)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    lock = _LastingLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            holder = _holder(path)
            # A killed supervisor's children hold it for the moment that it takes them to die too.
            if holder is not None or time.monotonic() > deadline:
                raise AlreadyRunning(pidfile, holder) from None
            time.sleep(0.02)
    # Duplicates share one open file and so one flock, which goes only with the last of them, or by LOCK_UN.
    descriptor = os.dup(lock.descriptor)
    lock.release()
    os.set_inheritable(descriptor, True)
    runtime_dir.name_holder(descriptor)
    return descriptor


class _LastingLock(filelock.UnixFileLock):
    """A lock whose release closes its descriptor without unlocking.

    A plain one unlocks when it is released, collected, or at the interpreter's end, for every duplicate of the
    descriptor at once; and its descriptor does not survive exec.
    """

    @property
    def descriptor(self) -> int:
        descriptor = self._context.lock_file_fd
        assert descriptor is not None, "only a lock that is held has one"
        return descriptor

    def _release(self) -> None:
        descriptor = self.descriptor
        self._context.lock_file_fd = None
        os.close(descriptor)


def _holder(path: str) -> int | None:
    """The live process that says it holds the lock, if any does."""
    try:
        with open(path, "rb") as file:
            pid, began = (int(number) for number in file.read(60).split())
    except (OSError, ValueError):  # just created: its holder has not written yet
        return None
    return pid if is_alive(pid, began) else None
