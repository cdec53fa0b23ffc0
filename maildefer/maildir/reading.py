"""Reading the bytes of a claimed entry, which may be something else than a file."""

from __future__ import annotations

import errno
import os
import stat

from maildefer.errors import EntryMalformed, EntryReadRefused, EntryTooLarge, raise_named
from maildefer.maildir.system import SYSTEM, System

# O_NOFOLLOW: a link is no message. O_NONBLOCK: a FIFO must not hold the worker.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FIRST_BYTES = 32 << 10  # one read for nearly every message, and no fstat
_NOT_A_FILE = {
    errno.ELOOP: "a symbolic link",
    errno.EISDIR: "a directory",
    errno.ENXIO: "a socket or a device",
    errno.ENODEV: "a device",
    errno.EAGAIN: "a FIFO",
}


def read_entry(path: str, limit_bytes: int, *, system: System = SYSTEM) -> bytes:
    """Read the entry's bytes, unchanged (I9).

    Raises FileNotFoundError, EntryMalformed, EntryTooLarge (before reading all of it), and StorageFault's kinds for
    faults that are not the entry's own.
    """
    try:
        descriptor = system.open(path, _FLAGS)
        try:
            data = system.read(descriptor, _FIRST_BYTES)
            if 0 < len(data) < _FIRST_BYTES:
                if len(data) > limit_bytes:
                    raise EntryTooLarge(path, len(data), limit_bytes)
                return data
            return _read_on(descriptor, path, data, limit_bytes, system)
        finally:
            system.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as fault:
        if what := _NOT_A_FILE.get(fault.errno or 0):
            raise EntryMalformed(path, what) from fault
        raise_named(path, fault, refused=EntryReadRefused)


def _read_on(descriptor: int, path: str, first: bytes, limit_bytes: int, system: System) -> bytes:
    """Read the rest of an empty or a long entry, after a check that it is a file."""
    facts = system.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise EntryMalformed(path, "a FIFO or a device")
    if facts.st_size > limit_bytes:
        raise EntryTooLarge(path, facts.st_size, limit_bytes)
    chunks, length = [first], len(first)
    while chunk := system.read(descriptor, 1 << 20) if first else b"":
        chunks.append(chunk)
        length += len(chunk)
        if length > limit_bytes:  # it grows while we read
            raise EntryTooLarge(path, length, limit_bytes)
    return b"".join(chunks)
