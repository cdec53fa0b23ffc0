"""Listing folders: lazily, so that memory stays flat whatever the backlog; a listing is a hint (I10)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import islice
from typing import NoReturn

from maildefer.errors import ReadRefused, storage_fault
from maildefer.maildir.names import is_entry
from maildefer.maildir.system import SYSTEM, System

CHUNK = 1000


def entries(path: str, *, system: System = SYSTEM) -> Iterator[str]:
    """The names in a folder as the filesystem gives them; a missing folder is an empty one. Raises OSError."""
    try:
        listing = system.scandir(path)
    except FileNotFoundError:
        return
    with listing:
        for found in listing:
            if is_entry(found.name):
                yield found.name


def chunks(path: str, size: int = CHUNK, *, system: System = SYSTEM) -> Iterator[list[str]]:
    """The same, so many at a time, the oldest of each chunk first (names begin with the time of the push)."""
    names = entries(path, system=system)
    while chunk := list(islice(names, size)):
        chunk.sort()
        yield chunk


def count(*paths: str, system: System = SYSTEM) -> int:
    """How many entries the folders hold together."""
    return sum(1 for path in paths for _ in entries(path, system=system))


def raise_unread(path: str, fault: OSError) -> NoReturn:
    """As `errors.raise_named`, for who only looks, and needs no permission to write."""
    if fault.errno in (errno.EACCES, errno.EPERM):
        raise ReadRefused(path, fault) from fault
    raise storage_fault(path, fault) from fault
