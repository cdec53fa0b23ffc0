"""What dm-log-writes wrote down, and the states that a disk may be in when the power goes.

The log is in an order that a disk may not fall short of: a write stands in it no earlier than the flush that made it
durable, unless it was durable by itself (FUA).  So what stands up to a flush is surely on the disk once that flush was
confirmed, and of what stands behind it, up to the next, anything may be: that is the epoch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

_SUPER: Final = struct.Struct("<QQQI")
_ENTRY: Final = struct.Struct("<QQQQ")
_MAGIC: Final = 0x6A736677736872
_FLUSH, _FUA, _DISCARD, _MARK = 1, 2, 4, 8
SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4096  # what a disk writes whole


@dataclass(frozen=True, slots=True)
class Entry:
    """One write, where the log's file holds what was written; or a mark."""

    at_byte: int
    size_bytes: int
    data_at: int
    is_durable: bool
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Cut:
    """A state of the disk: all of the log before `end`, and these pieces (byte on the disk, size, byte in the log)."""

    # Also the marks from here to the next durable write count: they were set before it was confirmed.
    end: int
    pieces: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)


def entries(path: str) -> Iterator[Entry]:
    with open(path, "rb") as log:
        magic, version, count, sector_bytes = _SUPER.unpack(log.read(_SUPER.size))
        assert (magic, version, sector_bytes) == (_MAGIC, 1, SECTOR_BYTES), "no log of dm-log-writes"
        at = SECTOR_BYTES
        for _ in range(count):
            log.seek(at)
            head = log.read(SECTOR_BYTES)
            sector, sectors, flags, length = _ENTRY.unpack_from(head)
            mark = head[_ENTRY.size : _ENTRY.size + length].rstrip(b"\0").decode() if flags & _MARK else ""
            size = 0 if flags & (_DISCARD | _MARK) else sectors * SECTOR_BYTES
            durable = bool(flags & (_FLUSH | _FUA))
            yield Entry(sector * SECTOR_BYTES, size, at + SECTOR_BYTES, durable, mark)
            at += SECTOR_BYTES + size


def cuts(log: list[Entry], begin: int, random: Random) -> Iterator[Cut]:
    """Each moment from `begin` on at which the disk had just confirmed something, and one within the epoch behind it.

    The latter has a random choice of the epoch's pages, since a disk may write them in any order.
    """
    bounds = [number for number in range(begin, len(log)) if log[number].is_durable]
    for bound, following in zip(bounds, [*bounds[1:], len(log)], strict=True):
        end = bound + 1
        yield Cut(end)
        pages = [page for entry in log[end:following] for page in _pages(entry)]
        if pages:
            share = random.random()
            yield Cut(end, tuple(page for page in pages if random.random() < share))


def marks_before(log: list[Entry], cut: Cut) -> list[str]:
    """What had been told to the world when the power went: also in the epoch, since nobody waits for its end."""
    found = [entry.mark for entry in log[: cut.end] if entry.mark]
    for entry in log[cut.end :]:
        if entry.is_durable:
            break
        if entry.mark:
            found.append(entry.mark)
    return found


def _pages(entry: Entry) -> Iterator[tuple[int, int, int]]:
    for offset in range(0, entry.size_bytes, PAGE_BYTES):
        size = min(PAGE_BYTES, entry.size_bytes - offset)
        yield entry.at_byte + offset, size, entry.data_at + offset
