"""The files of a journal, and how records get into them.

A process that writes few records appends them to a file that all processes of its user share, one write for each. One
that writes many maps a file of its own, so that a record costs no system call; it lies in the page cache then, which
outlives the process, as after a write. Such a file has room ahead, on the disk too, since a mapping that the disk can't
take would kill the process (SIGBUS); the room is NUL bytes, and is cut off when the file is closed.

A mapped file is one process's as long as that holds its lock (flock(2)); the next one goes on where a killed one has
stopped. So there are as many of them as processes at one time, however many are killed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from maildefer.maildir import durable
from maildefer.maildir.rights.folder import Folder
from maildefer.maildir.rights.modes import Rights
from maildefer.maildir.system import System

if TYPE_CHECKING:
    from mmap import mmap

_HIGH: Final = (
    200  # a handler that has closed all descriptors does not get so high a number for its next file
)
_PAGE: Final = 4096
_ROOM_BYTES: Final = 1 << 18  # by which a mapped file grows: some 2,000 records
_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE: a fault of each page by itself takes five times as long
_MOST_FILES: Final = 4096  # of one user's, for one day
_LONGEST_FACT: Final = 400  # characters of a fact that is noted
HANDOFFS_FIELD: Final = "h="
REPEATED: Final = "repeated"  # a fact of a note: a second push was told of the entry
_OTHERS_WRITE: Final = 0o022
_FLAGS: Final = durable.THERE & ~os.O_WRONLY | os.O_RDWR | os.O_CREAT
# Faults of a link, a FIFO that nobody reads, a folder, another user's file:
_IN_THE_WAY: Final = {errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.EACCES, errno.EPERM}


class JournalFile(Protocol):
    """Takes records; one thread at a time."""

    descriptor: int

    def write(self, data: bytes) -> bool:
        """Add records; False if only a part of them is there. Raises OSError."""

    def close(self) -> None: ...


class AppendedFile:
    """One write for each record, to wherever the descriptor was opened for."""

    def __init__(self, descriptor: int, *, system: System) -> None:
        self.descriptor, self._system = _raised(descriptor), system

    def write(self, data: bytes) -> bool:
        return self._system.write(self.descriptor, data) == len(data)

    def close(self) -> None:
        with suppress(OSError):  # closed by a handler
            self._system.close(self.descriptor)


class MappedFile:
    """A file of this process's own, in memory. Any thread may write to `window`, and goes by `write` at a ValueError.

    The mapping keeps the file's lock, also where a handler has closed the descriptor.
    """

    window: mmap

    def __init__(self, descriptor: int) -> None:
        """Take a file that is locked, and whose descriptor this closes. Raises OSError."""
        facts = os.fstat(descriptor)
        self.descriptor = descriptor
        self._number = facts.st_dev, facts.st_ino
        # A killed process has left up to twice the room. What it has not written stays NUL, which readers pass over:
        # any other byte there would belong to the record before.
        for room in (_PAGE, 2 * _ROOM_BYTES):
            begin = max(0, facts.st_size - room)
            if written := os.pread(descriptor, room, begin).rstrip(b"\0"):
                break
        self._map(begin + len(written))

    def write(self, data: bytes) -> bool:
        """Add records, always whole. Raises OSError where the disk is full."""
        try:
            self.window.write(data)
        except ValueError:  # no room
            window, end = self.window, self._stop()
            try:
                self._map(self._begin + end, len(data))
            except OSError:
                window.seek(end)
                raise
            self.window.write(data)
        return True

    def close(self) -> None:
        """Give the room back that is not used."""
        end = self._begin + self._stop()
        self.window.close()
        with suppress(OSError):  # closed by a handler
            self._size()
            os.ftruncate(self.descriptor, end)
            os.close(self.descriptor)

    def _stop(self) -> int:
        """Have the window take no more; returns where its records end, with those that come before it does."""
        at = self.window.tell()
        self.window.seek(0, os.SEEK_END)
        end = self.window.find(b"\0", at)
        return len(self.window) if end < 0 else end

    def _map(self, at: int, least_bytes: int = 0) -> None:
        """Map a window for what follows that place, with room on the disk for all of it."""
        from mmap import mmap  # a shared library, loaded only where a journal is kept

        begin = at // _PAGE * _PAGE
        size = self._size()
        until = begin + (2 * _ROOM_BYTES + least_bytes) // _PAGE * _PAGE
        if size < until:
            os.posix_fallocate(self.descriptor, size, until - size)
        window = mmap(self.descriptor, until - begin, offset=begin)
        with suppress(OSError):  # before Linux 5.14
            window.madvise(_POPULATE_WRITE)
        window.seek(at - begin)
        self.window, self._begin = window, begin

    def _size(self) -> int:
        """The file's size. Raises OSError where the descriptor is another file's: a handler has closed ours."""
        facts = os.fstat(self.descriptor)
        if (facts.st_dev, facts.st_ino) != self._number:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return facts.st_size


def were_removed(files: Iterable[JournalFile]) -> bool:
    """Whether any of these has no name any more. One whose descriptor a handler has closed is not seen."""
    for file in files:
        with suppress(OSError):
            if os.fstat(file.descriptor).st_nlink == 0:
                return True
    return False


def open_appended(
    journal: Folder, stem: str, kind: str, rights: Rights, *, alone: bool, system: System
) -> int:
    """Open the file that all processes of a user share; if something else has its name, a file of this process's own.

    `alone`: such a file at once, past the page cache. Raises OSError.
    """
    if not alone and rights.owner < 0:  # root gives its file away
        try:
            return _open_shared(journal, f"{stem}.{kind}", rights, system)
        except OSError as fault:
            if fault.errno not in _IN_THE_WAY:
                raise
    flags = durable.NEW | (os.O_DIRECT if alone else os.O_APPEND)
    descriptor = journal.open(f"{stem}.{system.token(8)}.{kind}", flags, rights.file_mode)
    rights.give(descriptor)
    return descriptor


def _open_shared(journal: Folder, name: str, rights: Rights, system: System) -> int:
    descriptor = journal.open(name, durable.THERE | os.O_APPEND | os.O_CREAT, rights.file_mode)
    try:
        durable.must_be_plain(descriptor, name, os.geteuid(), system)
        rights.give(descriptor)
    except OSError:
        system.close(descriptor)
        raise
    return descriptor


def open_mapped(folder: Folder, stem: str, kind: str, mode: int, *, system: System) -> MappedFile | None:
    """Lock and map a file of this user's that no process has; None where that can't be had. Raises nothing."""
    for number in range(_MOST_FILES):
        name, descriptor = f"{stem}.m{number}.{kind}", -1
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock

            descriptor = _raised(folder.open(name, _FLAGS, mode & ~_OTHERS_WRITE))
            flock(descriptor, LOCK_EX | LOCK_NB)
            durable.must_be_plain(descriptor, name, os.geteuid(), system)
            if not os.fstat(descriptor).st_mode & _OTHERS_WRITE:  # who can shorten it could kill this process
                return MappedFile(descriptor)
            fault: Exception | None = None
        except (OSError, MemoryError, ImportError) as refused:
            fault = refused
        if descriptor >= 0:
            os.close(descriptor)
        if not isinstance(fault, BlockingIOError):  # else another process has it
            return None
    return None


def _raised(descriptor: int) -> int:
    """Return a descriptor of the same file with a high number, and close this one."""
    from fcntl import F_DUPFD_CLOEXEC, fcntl  # a shared library, loaded only where a journal is kept

    try:
        high = fcntl(descriptor, F_DUPFD_CLOEXEC, _HIGH)
    except OSError:  # RLIMIT_NOFILE is lower
        return descriptor
    os.close(descriptor)
    return high


def quoted(text: str) -> str:
    """Render a field of a record; characters of other writers' names that would break the line are escaped."""
    if text.isascii() and text.isprintable() and " " not in text and "%" not in text:
        return text
    return "".join(chr(c) if 0x21 <= c < 0x7F and c != 0x25 else f"%{c:02X}" for c in os.fsencode(text))


@lru_cache  # of handlers, above all
def quoted_fact(text: str) -> str:
    """Render one of several facts, which are separated by commas."""
    return quoted(text).replace(",", "%2C")


def quoted_facts(facts: Mapping[str, object]) -> str:
    """Render the facts of a note, without those that are empty."""
    cut = {name: str(value)[:_LONGEST_FACT].replace("\0", " ") for name, value in facts.items() if value}
    return ",".join([f"{name}={quoted_fact(text)}" for name, text in cut.items()])


@lru_cache  # of handlers, and of those milliseconds that most take
def end_facts(handoffs: int, handler: str = "", ms: int = 0) -> str:
    """Render what stands behind the key in the record of an end: by which handler it was, if by any, and how long."""
    facts = [f"{HANDOFFS_FIELD}{handoffs}"] if handoffs else []
    if handler:
        facts += [f"handler={quoted_fact(handler)}", f"ms={ms}"]
    return f" {','.join(facts)}" if facts else ""


def unquoted(text: str) -> str:
    """Return the text of a field that `quoted` has rendered."""
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    return os.fsdecode(first + b"".join(bytes([int(part[:2], 16)]) + part[2:] for part in rest))


def name_host_with(label: Callable[[], str]) -> None:
    """Have files named by this host's label, as leases are: many hosts' names begin alike."""
    global _label
    _label = label


def host_name() -> str:
    """Return the host as it is written in names of files: letters, digits and dashes."""
    return _label()


def former_host_name() -> str:
    """Return what earlier versions wrote in names of files, and what is written where nothing has set a label."""
    name = os.uname().nodename.partition(".")[0].lower()
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)[:30] or "host"


_label: Callable[[], str] = former_host_name  # before `name_host_with` sets another


def boot_name() -> str:
    """Return a name of this boot: records of an earlier boot that were not synced may be lost."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read(8)
    except OSError:
        return "unknown"
