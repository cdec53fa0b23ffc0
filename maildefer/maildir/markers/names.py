"""The names of markers: their folders, their files, and what a listing of a marker's folder says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from maildefer.digest import blake2b
from maildefer.errors import UniqueKeyRefused
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, is_entry

UNIQUE: Final = "unique"  # the folder of the markers
MARKER_DRAFT: Final = (
    ".marker-"  # the beginning of the name, in `tmp/`, of a marker's folder that is being made
)
DRAFT: Final = ".draft"
ENDED: Final = ".ended"
LONGEST_BYTES: Final = 1024
IN_KEY: Final = ",q="  # before the hash, in the keys of entries that have a marker in `unique/`
_HASH_BYTES: Final = 8
_IN_KEY: Final = re.compile(r",q=([0-9a-f]{16}),")


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerState:
    """What a listing of a marker's folder has shown."""

    marker: str = ""  # empty: there is none, and the folder may be taken
    has_draft: bool = False
    ended: tuple[str, ...] = ()  # the keys of entries that have ended

    @property
    def key(self) -> str:
        return key_in(self.marker)

    @property
    def has_ended(self) -> bool:
        return bool(self.marker) and self.key in self.ended

    @property
    def is_requeues(self) -> bool:
        """Whether a requeue has made it, and no push."""
        return ",n=" in self.marker

    @classmethod
    def of(cls, listed: Iterable[str]) -> MarkerState:
        """Read a listing. A draft alone, which should not be there, counts as a marker, so that it is never lost."""
        files = [name for name in listed if is_entry(name)]
        ended = tuple(name.removesuffix(ENDED) for name in files if name.endswith(ENDED))
        drafts = {name.removesuffix(DRAFT) for name in files if name.endswith(DRAFT)}
        markers = [name for name in files if not name.endswith((ENDED, DRAFT))]
        marker = max([*markers, *drafts], default="")
        return cls(marker=marker, has_draft=marker in drafts, ended=ended)


def hash_of(name: object) -> str:
    """Return the hash of a marker's name: 64 bits. Raises TypeError, UniqueKeyRefused.

    Of a million names in use at a time two have the same hash once in 37 million cases; the second push of such two
    finds the first's entry. A search for two such names takes some 2**32 hashes, and for the name of somebody else's
    hash 2**64: a name that a stranger chooses should be told apart by who chose it.
    """
    return blake2b(encoded_name(name, "unique={!r}"), digest_size=_HASH_BYTES).hexdigest()


def encoded_name(
    name: object, what: str, refused: Callable[[str, str], Exception] = UniqueKeyRefused
) -> bytes:
    """Return the bytes of a name that an application has chosen. Raises TypeError, and `refused` for the others."""
    if not isinstance(name, str):
        raise TypeError(f"{what.format(name)}: give text, such as an order's number")
    try:
        data = name.encode()
    except UnicodeEncodeError as fault:
        raise refused(name, "has half of a surrogate pair") from fault
    if not data:
        raise refused(name, "is empty")
    if len(data) > LONGEST_BYTES:
        raise refused(name, f"has {len(data)} bytes, more than {LONGEST_BYTES}")
    return data


def marker_path(layout: Layout, hashed: str) -> str:
    return f"{layout.control}/{UNIQUE}/{hashed}"


def path_in_key(layout: Layout, key: str) -> str | None:
    """Return the folder of the marker that an entry's key names; None for an entry without one."""
    match = _IN_KEY.search(key) if IN_KEY in key else None
    return marker_path(layout, match[1]) if match else None


def key_in(marker: str) -> str:
    """Return the key of the entry that a marker names."""
    return EntryName.parse(marker).key if ",n=" in marker else marker
