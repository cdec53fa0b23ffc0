"""Listing folders lazily, so that memory use does not grow with the backlog; a listing is a hint (I10)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NoReturn

from maildefer.errors import ReadRefused, storage_fault
from maildefer.maildir.names import EntryName, is_entry
from maildefer.maildir.system import SYSTEM, System

CHUNK = 1000
Folder = Literal["waiting", "claimed", "deferred", "dead", "undeliverable"]


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """The place where an entry was seen; a hint, since another process may move it at any time (I10)."""

    folder: Folder
    directory: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"

    @property
    def entry(self) -> EntryName:
        return EntryName.parse(self.name)

    @property
    def key(self) -> str:
        return self.entry.key


def entries(path: str, *, system: System = SYSTEM) -> Iterator[str]:
    """Return the names in a folder in the filesystem's order; a missing folder counts as empty. Raises OSError."""
    try:
        listing = system.scandir(path)
    except FileNotFoundError:
        return
    with listing:
        for found in listing:
            if is_entry(found.name):
                yield found.name


def chunks(path: str, size: int = CHUNK, *, system: System = SYSTEM) -> Iterator[list[str]]:
    """Return the names in lists of `size`; in each the oldest first (names begin with the time of the push)."""
    names = entries(path, system=system)
    while chunk := list(islice(names, size)):
        chunk.sort()
        yield chunk


def count(*paths: str, system: System = SYSTEM) -> int:
    """Count the entries of all these folders together."""
    return sum(1 for path in paths for _ in entries(path, system=system))


def raise_unread(path: str, fault: OSError) -> NoReturn:
    """Raise what `errors.raise_named` raises, for a caller that only reads, and needs no permission to write."""
    if fault.errno in (errno.EACCES, errno.EPERM):
        raise ReadRefused(path, fault) from fault
    raise storage_fault(path, fault) from fault
