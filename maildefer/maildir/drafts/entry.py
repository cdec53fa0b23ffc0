"""An entry's bytes before its push: composed at once, or written to `tmp/` while they come, as they are too many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from maildefer.digest import blake2b
from maildefer.errors import QueueMissing, raise_named
from maildefer.maildir import durable, scan
from maildefer.maildir.layout import Layout, mend
from maildefer.maildir.rights.modes import PLAIN, Rights
from maildefer.maildir.system import SYSTEM, System

_COPY_BYTES = 256 << 10
# What the journal notes is in them: the envelope block, and of the header the beginning.
_HEAD_BYTES = 20 << 10


def draft_name(key: str, rights: Rights) -> str:
    """Return an entry's name in `tmp/`: its key; in a shared queue a hash, so that no other user can take the name."""
    return blake2b(key.encode(), digest_size=16).hexdigest() if rights.is_shared else key


class Draft:
    """A file in `tmp/` that `Pusher` makes an entry, when it syncs it and moves it to `new/`; for one thread at a time.

    Raises what a push raises; a draft that could not be written, or was discarded, is removed.
    """

    def __init__(self, layout: Layout, stem: str, *, rights: Rights = PLAIN, system: System = SYSTEM) -> None:
        self.stem = stem
        self.path = f"{layout.tmp}/{draft_name(stem, rights)}"
        self.size_bytes = 0
        self.head = b""  # its first bytes
        self._layout = layout
        self._rights = rights
        self._system = system
        self._announced_bytes = 0
        try:
            self.descriptor = self._create()
            self._give()
        except FileNotFoundError as fault:
            raise QueueMissing(layout.path) from fault
        except OSError as fault:
            raise_named(layout.tmp, fault)

    def _create(self) -> int:
        try:
            return self._system.open(self.path, durable.NEW, self._rights.file_mode)
        except FileNotFoundError:
            if not mend(self._layout, system=self._system):
                raise
        return self._system.open(self.path, durable.NEW, self._rights.file_mode)

    def _give(self) -> None:
        try:
            self._rights.give(self.descriptor)
        except OSError:
            self.discard()
            raise

    @property
    def key(self) -> str:
        """The key that the entry will have."""
        return f"{self.stem},S={self.size_bytes}"

    def append_all(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self.append(piece)

    def append(self, data: bytes | memoryview) -> None:
        try:
            durable.write_all(self.descriptor, data, self._system)
        except OSError as fault:
            self.discard()
            raise_named(self._layout.tmp, fault)
        if self.size_bytes < _HEAD_BYTES:
            self.head += data[: _HEAD_BYTES - self.size_bytes]
        self.size_bytes += len(data)

    def append_from(self, other: Draft, offset: int) -> None:
        """Append the other draft's bytes from `offset` on, in pieces, so that memory use stays small."""
        system = self._system
        try:
            source = system.open(other.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                at = 0
                while data := system.read(source, _COPY_BYTES):
                    self.append(data[max(0, offset - at) :])
                    at += len(data)
            finally:
                system.close(source)
        except OSError as fault:
            self.discard()
            raise_named(self._layout.tmp, fault)

    def announce_sync(self) -> None:
        """Have the kernel begin to write what was appended since the last call, so that the sync waits for less."""
        durable.announce_sync(self.descriptor, self._system, offset=self._announced_bytes)
        self._announced_bytes = self.size_bytes

    def sync(self) -> None:
        """Make its bytes durable, and close it."""
        try:
            self._system.fsync(self.descriptor)
        except OSError as fault:
            self.discard()
            raise_named(self._layout.tmp, fault)
        self.close()

    def close(self) -> None:
        """Close the descriptor; the file stays."""
        if self.descriptor >= 0:
            self._system.close(self.descriptor)
            self.descriptor = -1

    def discard(self) -> None:
        self.close()
        durable.discard(self.path, self._system)


class UnsyncedEntry(NamedTuple):
    """An entry in `tmp/` that is not synced yet; with `draft` it can't be written again from its chunks."""

    key: str
    path: str
    descriptor: int
    draft: Draft | None

    def close(self, system: System) -> None:
        if self.draft is not None:
            self.draft.close()
        else:
            system.close(self.descriptor)

    def announce_sync(self, system: System) -> None:
        if self.draft is not None:
            self.draft.announce_sync()
        else:
            durable.announce_sync(self.descriptor, system)


Compose = Callable[[str], Sequence[bytes | memoryview] | Draft]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A compose whose entry is pushed for later, as `Pusher.due` says, or with a priority. ValueError for none."""

    compose: Compose
    due: int | None = None
    priority: str = "normal"

    def __post_init__(self) -> None:
        if not isinstance(self.priority, str) or self.priority not in scan.PRIORITIES:
            raise ValueError(f"priority={self.priority!r}: give one of {', '.join(scan.PRIORITIES)}")

    @property
    def part(self) -> str:
        """The part of the entry's key that says its priority."""
        return scan.PRIORITIES[self.priority]

    def __call__(self, stem: str) -> Sequence[bytes | memoryview] | Draft:
        return self.compose(stem)


def mark_priorities(layout: Layout, rights: Rights, system: System) -> None:
    """Let keepers know that the queue has entries with priorities. A scout that is not told goes by what it sees."""
    with suppress(OSError):  # it is there; or this user may not
        system.close(
            durable.begin_file(f"{layout.control}/{scan.PRIORITY_MARK}", b"", rights=rights, system=system)
        )
