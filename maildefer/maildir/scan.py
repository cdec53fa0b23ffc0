"""Listing folders: lazily, so that memory stays flat whatever the backlog; a listing is a hint (I10)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

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
