"""Writing files so that they survive a power cut: sync the file first, then its directory (I1).

`DirectorySync` lets all threads that wait for one directory share a single fsync (group commit).
On Linux NFS the directory's fsync does nothing, since the server's `sync` export has done it; ext4, xfs and CephFS
need it (fsync(2), NOTES), and on btrfs a commit of all names takes its place (decision 94).
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Sequence
from functools import cache

from maildefer.maildir.rights.modes import PLAIN, Rights
from maildefer.maildir.system import SYSTEM, System

FILE_MODE = PLAIN.file_mode
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
THERE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not block the process
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def begin_file(path: str, data: bytes, *, rights: Rights = PLAIN, system: System = SYSTEM) -> int:
    """Create `path` and write the data; returns the open descriptor. On a fault the file is removed."""
    descriptor = system.open(path, NEW, rights.file_mode)
    try:
        rights.give(descriptor)
        if data:
            write_all(descriptor, data, system)
    except BaseException:
        system.close(descriptor)
        discard(path, system)
        raise
    return descriptor


def sync_all(descriptors: Sequence[int], system: System) -> list[OSError | None]:
    """Sync several files, one after the other; returns the fault of each, or None."""
    faults: list[OSError | None] = []
    for descriptor in descriptors:
        try:
            system.fsync(descriptor)
        except OSError as fault:
            faults.append(fault)
        else:
            faults.append(None)
    return faults


def announce_sync(descriptor: int, system: System, *, offset: int = 0) -> None:
    """Have the kernel begin to write a file that will be synced, from `offset` on.

    This allocates the file's blocks, so that one commit of ext4's journal, at the first fsync of several files, holds
    what all of them wait for: eight files take a third of the time, and each still has its own fsync.
    Bytes that are being written stay in the page cache; bytes that were announced and written before would leave it.
    """
    try:
        system.posix_fadvise(descriptor, offset, 0, os.POSIX_FADV_DONTNEED)
    except OSError:  # only a hint
        pass


def write_all(descriptor: int, data: bytes | memoryview, system: System) -> None:
    """Write all the data: write(2) may write less than it is given, above all on a full disk."""
    written = system.write(descriptor, data)
    while written < len(data):
        written += system.write(descriptor, data[written : written + (1 << 20)])


def write_new(path: str, data: bytes, *, rights: Rights = PLAIN, system: System = SYSTEM) -> None:
    """Create a file with that data, and sync it; on a fault it is removed."""
    descriptor = begin_file(path, data, rights=rights, system=system)
    try:
        system.fsync(descriptor)
    except BaseException:
        system.close(descriptor)
        discard(path, system)
        raise
    system.close(descriptor)


def replace_file(
    path: str,
    data: bytes,
    draft: str,
    *,
    durably: bool = True,
    rights: Rights = PLAIN,
    system: System = SYSTEM,
) -> None:
    """Put `data` at `path` in one step, by way of `draft` on the same filesystem; readers see the old file or the new.

    The draft must have a name that nobody can guess, since a file that exists under that name makes the call fail.
    """
    if durably:
        write_new(draft, data, rights=rights, system=system)
    else:
        system.close(begin_file(draft, data, rights=rights, system=system))
    try:
        system.rename(draft, path)
    except OSError:
        discard(draft, system)
        raise
    if durably:
        sync_directory(os.path.dirname(path), system=system)


def must_be_plain(descriptor: int, path: str, owner: int, system: System) -> None:
    """Raise PermissionError unless the opened file is a plain file of that user with no other name.

    Otherwise another user may have put a link there, to have us write to the file that it leads to.
    """
    facts = system.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_uid != owner:
        raise PermissionError(errno.EPERM, "not a plain file of this user's", path)


def read_small(path: str, *, limit_bytes: int = 1 << 16, system: System = SYSTEM) -> bytes:
    """Read a file up to a limit; for control files, which are small."""
    descriptor = system.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return system.read(descriptor, limit_bytes)
    finally:
        system.close(descriptor)


def sync_directory(path: str, *, system: System = SYSTEM, opened: int = -1) -> None:
    """Sync a folder by its path, since it may have been replaced; or by the descriptor `opened`, which stays open."""
    descriptor = opened if opened >= 0 else system.open(path, DIRECTORY)
    try:
        if not system.commit(descriptor):
            system.fsync(descriptor)
    finally:
        if opened < 0:
            system.close(descriptor)


@cache
def keeps_order(device: int) -> bool:
    """Whether the filesystem on that block device has a journal that keeps the order of all changes of names.

    Then none of them survives a power cut without those before it, and a sync of the last folder serves for all.
    """
    try:
        name = os.path.basename(os.readlink(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"))
        if os.path.exists(f"/sys/fs/xfs/{name}"):
            return True
        with open(f"/sys/fs/ext4/{name}/journal_task") as file:
            return file.read(16).strip().isdigit()  # without a journal it is "<none>"
    except OSError:  # another filesystem, or /sys can't be read
        return False


def discard(path: str, system: System) -> None:
    """Remove a half-written file of ours; if that fails too, the sweep of `tmp/` removes it later."""
    try:
        system.unlink(path)
    except OSError:
        pass


class _Waiter:
    """A caller that waits, on a lock of its own, so that each wake-up wakes one thread and not all of them."""

    __slots__ = ("after", "directory", "fault", "followers", "is_gone", "is_woken", "wake_lock")

    def __init__(self) -> None:
        self.wake_lock = threading.Lock()
        self.wake_lock.acquire()
        self.fault: OSError | None = None
        self.followers: list[_Waiter] | None = None  # set for the waiter that carries out the sync for these
        self.after: _Waiter | None = None  # the waiter that this one wakes
        self.is_woken = self.is_gone = False
        self.directory = -1  # opened, while it waits, by the waiter that will sync it


class DirectorySync:
    """Makes one fsync of a directory for all callers that wait for it at the time; any thread may call.

    A caller needs a sync that *began* after its rename. Callers that come while a sync runs wait together for the next
    one; when the first ends, the first of these callers carries out the next, and is woken before all others. The
    callers whose sync has ended wake one another: if all woke at once they would wait for the interpreter's lock, and
    the caller that carries out the next sync would have to wait with them.
    """

    def __init__(self, path: str, *, system: System = SYSTEM) -> None:
        self._path = path
        self._system = system
        self._lock = threading.Lock()
        self._running = False
        self._waiting: list[_Waiter] = []

    def sync(self) -> None:
        """Return when the directory's present entries are on stable storage; raises the OSError of that fsync."""
        with self._lock:
            if not self._running:
                self._running = True
                waiter = None
            else:
                waiter = _Waiter()
                self._waiting.append(waiter)
                is_next = len(self._waiting) == 1
        if waiter is None:
            self._lead([])
            return
        try:
            self._wait(waiter, is_next=is_next)
            if waiter.followers is not None:
                self._lead(waiter.followers, waiter.directory)
            elif waiter.fault is not None:
                raise waiter.fault
        finally:
            if waiter.directory >= 0:
                self._system.close(waiter.directory)

    def _lead(self, followers: list[_Waiter], directory: int = -1) -> None:
        fault = None
        try:
            sync_directory(self._path, system=self._system, opened=directory)
        except OSError as caught:
            fault = caught
        except BaseException:  # an interrupt: nothing is synced, so another waiter has to carry it out (I1)
            self._hand_over(followers)
            raise
        self._hand_over([])
        after = None
        for waiter in reversed(followers):
            waiter.fault, waiter.after = fault, after
            after = waiter
        if after is not None:
            self._wake(after)
        if fault is not None:
            raise fault

    def _hand_over(self, again: list[_Waiter]) -> None:
        """Begin the next sync, for all callers that wait and for those whose sync did not happen."""
        with self._lock:
            following, self._waiting = again + self._waiting, []
            self._running = bool(following)
            if not following:
                return
            following[0].followers = following[1:]
        following[0].wake_lock.release()

    def _wake(self, waiter: _Waiter | None) -> None:
        """Wake the first waiter, from this one on, that was not interrupted; calling it twice does no harm."""
        if waiter is None:
            return
        with self._lock:
            while waiter is not None and waiter.is_gone:
                waiter = waiter.after
            if waiter is not None and not waiter.is_woken:
                waiter.is_woken = True
                waiter.wake_lock.release()

    def _opened(self) -> int:
        """Open the directory; -1 if that fails, since the sync will then raise the fault."""
        try:
            return self._system.open(self._path, DIRECTORY)
        except OSError:
            return -1

    def _wait(self, waiter: _Waiter, *, is_next: bool) -> None:
        try:
            if is_next:  # opened now, while no other thread waits for this one
                waiter.directory = self._opened()
            waiter.wake_lock.acquire()
            self._wake(waiter.after)  # None for the waiter that carries out the next sync
        except BaseException:  # an interrupt: another waiter does what this one should have done
            with self._lock:
                waiter.is_gone = True
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
            if waiter.followers is not None:
                self._hand_over(waiter.followers)
            if waiter.is_woken:
                self._wake(waiter.after)
            raise
