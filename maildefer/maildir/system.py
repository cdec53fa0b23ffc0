"""Filesystem, clock and randomness for the queue, in one value that the simulation replaces."""

from __future__ import annotations

import errno
import os
import struct
import time as _time
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import ioctl
from functools import partial
from typing import Any, Final

# Seconds on the clock that nobody can set and that counts suspension (clock_gettime(2)); a partial, since it is read
# for each claim, and takes half the time of a function.
boottime: Callable[[], float] = partial(_time.clock_gettime, _time.CLOCK_BOOTTIME)


_ready: dict[int, list[str]] = {}
os.register_at_fork(after_in_child=_ready.clear)  # a child must not return the tokens that its parent returns
_DRAWN = 64


def token(size_bytes: int) -> str:
    """Return random bytes in hexadecimal; any thread. The kernel is asked for many at a time: each push needs one."""
    ready = _ready.get(size_bytes)
    if ready is None:
        ready = _ready.setdefault(size_bytes, [])
    try:
        return ready.pop()
    except IndexError:  # used up
        drawn = os.urandom(size_bytes * _DRAWN).hex()
        tokens = [drawn[at : at + 2 * size_bytes] for at in range(0, len(drawn), 2 * size_bytes)]
        ready += tokens[1:]
        return tokens[0]


# BTRFS_IOC_START_SYNC, which gives the number of the open transaction, and BTRFS_IOC_WAIT_SYNC, which waits for its
# commit (linux/btrfs.h): _IOR and _IOW of a __u64, by the numbers of all architectures but alpha, mips, powerpc, sparc.
_START_SYNC: Final = 0x80089418
_WAIT_SYNC: Final = 0x40089416
_UNKNOWN: Final = frozenset(
    {errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES}
)
_without_commit: set[int] = set()  # devices whose filesystem has none, so that it isn't asked again


def commit_names(descriptor: int) -> bool:
    """Write all changes of names of the descriptor's filesystem, and return True when they are on stable storage.

    False, and nothing is done, where it is not btrfs, whose fsync of a folder writes the names that it has, and not
    which have left other folders (decision 94). Files are written as far as they were synced. Any thread.
    """
    device = os.fstat(descriptor).st_dev
    if device in _without_commit:
        return False
    try:
        number = ioctl(descriptor, _START_SYNC, struct.pack("Q", 0))
    except OSError as fault:
        if fault.errno not in _UNKNOWN:
            raise
        _without_commit.add(device)
        return False
    ioctl(descriptor, _WAIT_SYNC, number)
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Functions with the names and the behaviour of `os` and `time`; the defaults are those functions themselves."""

    rename: Callable[..., None] = os.rename
    unlink: Callable[..., None] = os.unlink
    open: Callable[..., int] = os.open
    read: Callable[[int, int], bytes] = os.read
    write: Callable[[int, bytes | memoryview], int] = os.write
    ftruncate: Callable[[int, int], None] = os.ftruncate
    fsync: Callable[[int], None] = os.fsync
    commit: Callable[[int], bool] = commit_names
    posix_fadvise: Callable[[int, int, int, int], None] = os.posix_fadvise
    close: Callable[[int], None] = os.close
    fstat: Callable[[int], os.stat_result] = os.fstat
    lstat: Callable[..., os.stat_result] = os.lstat
    mkdir: Callable[..., None] = os.mkdir
    rmdir: Callable[..., None] = os.rmdir
    utime: Callable[[str | int], None] = os.utime  # a path, or the descriptor of a folder
    listdir: Callable[..., list[str]] = os.listdir  # a path, or the descriptor of a folder
    scandir: Callable[[str | int], Any] = (
        os.scandir
    )  # lazily: an iterator of entries with .name, and a context manager
    time: Callable[[], float] = _time.time
    boottime: Callable[[], float] = boottime
    sleep: Callable[[float], None] = _time.sleep
    token: Callable[[int], str] = token
    pid: Callable[[], int] = os.getpid


SYSTEM = System()
