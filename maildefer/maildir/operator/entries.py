"""Operators' work on single entries: find, show, requeue, release, delete; each move is one rename or unlink.

Any process on any host may do this while pools run: the first process moves the entry, and the other finds it gone.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from maildefer.errors import EntryAmbiguous, EntryClaimed, EntryMalformed, EntryNotFound, raise_named
from maildefer.maildir import doubt, durable, names, reading, reasons, scan
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.ends import end_entry, free_marker, free_marker_of
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import confined_to, one_round
from maildefer.maildir.scan import Folder as Folder
from maildefer.maildir.scan import FoundEntry as FoundEntry
from maildefer.maildir.system import SYSTEM, System

FOLDERS: Final[tuple[Folder, ...]] = ("waiting", "claimed", "deferred", "dead")
ALL_FOLDERS: Final[tuple[Folder, ...]] = (*FOLDERS, "kept")  # also of entries that have ended
MOST_LISTED: Final = 1000
_MOST_CANDIDATES: Final = 100


def list_entries(layout: Layout, folder: Folder, *, system: System = SYSTEM) -> Iterator[FoundEntry]:
    """Yield the folder's entries, lazily and in no order. Raises OSError.

    Entries that a mail reader moved to `cur/` count as waiting; in `cur/` of the other folders, as deferred or dead.
    """
    system = confined_to(layout.path, system)
    match folder:
        case "waiting":
            yield from (
                FoundEntry(folder, layout.new, name) for name in scan.entries(layout.new, system=system)
            )
            for name in scan.entries(layout.cur, system=system):
                if not is_claimed(name):
                    yield FoundEntry(folder, layout.cur, name)
        case "claimed":
            for name in scan.entries(layout.cur, system=system):
                if is_claimed(name):
                    yield FoundEntry(folder, layout.cur, name)
        case "deferred":
            yield from _both(folder, layout.later_new, layout.later_cur, system)
        case "dead":
            yield from _both(folder, layout.dead_new, layout.dead_cur, system)
        case "kept":
            yield from _both(folder, layout.done_new, layout.done_cur, system)
        case "undeliverable":  # waiting entries that have a reason; they count as waiting too
            with_reason = reasons.names_of_reasons(layout, system=system)
            for found in list_entries(layout, "waiting", system=system) if with_reason else ():
                if reasons.reason_name(found.entry) in with_reason:
                    yield FoundEntry(folder, found.directory, found.name)


def waiting(layout: Layout, *, system: System = SYSTEM) -> Iterator[FoundEntry]:
    """Yield the waiting entries, lazily and in no order. Raises StorageFault's kinds."""
    try:
        yield from list_entries(layout, "waiting", system=system)
    except OSError as fault:
        scan.raise_unread(layout.new, fault)


def oldest(layout: Layout, *, system: System = SYSTEM) -> list[FoundEntry]:
    """Sort the first `MOST_LISTED` waiting entries that the filesystem lists by age. Raises StorageFault's kinds."""
    return sorted(islice(waiting(layout, system=system), MOST_LISTED), key=lambda found: found.name)


def find(
    layout: Layout, key: str, folders: tuple[Folder, ...] = FOLDERS, *, system: System = SYSTEM
) -> FoundEntry:
    """Find the entry with that key, or with that whole name. Raises EntryNotFound, StorageFault's kinds, TypeError."""
    ensure_key(key)
    entry = EntryName.parse(key)
    head = entry.key.partition(",")[0]
    try:
        if "waiting" in folders and _is_waiting(layout, key, system):
            return FoundEntry("waiting", layout.new, key)  # spares the listing of a long queue
        for folder in folders:
            for found in list_entries(layout, folder, system=system):
                if found.name.startswith(head) and (found.name == key or _has_key(found.entry, entry)):
                    return found
    except OSError as fault:
        scan.raise_unread(layout.path, fault)
    raise EntryNotFound(key, layout.path)


def ensure_key(key: object) -> None:
    """Raise TypeError for what a program gives as a key and is none: a `push` that failed has returned none."""
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is no key of an entry: give the text that `push` or `defer` has returned")


def not_found(layout: Layout, keys: Sequence[str]) -> list[EntryNotFound]:
    """The errors for keys that none of the folders has for which one has looked. Raises StorageFault's kinds."""
    claimed = find_named(layout, keys, ("claimed",)) if keys else {}
    return [(EntryClaimed if claimed[key] else EntryNotFound)(key, layout.path) for key in keys]


def find_named(
    layout: Layout, keys: Sequence[str], folders: tuple[Folder, ...] = FOLDERS, *, system: System = SYSTEM
) -> dict[str, list[FoundEntry]]:
    """Find the entries that people name: by key, by whole name, or by the beginning of only one key.

    It lists each folder once, however many keys are given. A key that is nowhere has no entries. Raises EntryAmbiguous
    if any is ambiguous, so that nothing is done before all are clear, and StorageFault's kinds. A key of several
    entries is ambiguous too: other users that put entries in choose their keys, and may choose another entry's.
    """
    if len(keys) == 1 and "waiting" in folders and _is_waiting(layout, keys[0], system):
        return {keys[0]: [FoundEntry("waiting", layout.new, keys[0])]}  # spares the listing of a long queue
    heads: dict[str, list[str]] = {}
    for key in filter(None, dict.fromkeys(keys)):
        for head in {key, EntryName.parse(key).key}:
            heads.setdefault(head, []).append(key)
    lengths = sorted({len(head) for head in heads})
    whole: dict[str, list[FoundEntry]] = {key: [] for key in keys}
    exact: dict[str, list[FoundEntry]] = {key: [] for key in keys}
    short: dict[str, list[FoundEntry]] = {key: [] for key in keys}
    try:
        for folder in folders:
            for found in list_entries(layout, folder, system=system):
                candidates = (key for length in lengths for key in heads.get(found.name[:length], ()))
                for key in dict.fromkeys(candidates):  # a whole name begins with its key as well
                    if found.name == key:
                        whole[key].append(found)
                    elif _has_key(found.entry, EntryName.parse(key)):
                        exact[key].append(found)
                    elif found.key.startswith(key) and len(short[key]) < _MOST_CANDIDATES:
                        short[key].append(found)
    except OSError as fault:
        scan.raise_unread(layout.path, fault)
    chosen = {key: whole[key] or exact[key] or short[key] for key in exact}
    for key, matches in chosen.items():
        _must_be_clear(layout, key, matches)
    return chosen


def _must_be_clear(layout: Layout, key: str, matches: list[FoundEntry]) -> None:
    """Raise EntryAmbiguous for several entries; one name in several folders may be one entry, moved meanwhile."""
    if len(candidates := sorted({found.key for found in matches})) > 1:
        raise EntryAmbiguous(key, candidates, layout.path)
    places = {(found.directory, found.name) for found in matches}
    folders = {directory for directory, _ in places}
    if len({found.entry.unique for found in matches}) > 1 or len(folders) < len(places):
        candidates = sorted(name for _, name in places)
        raise EntryAmbiguous(key, candidates, layout.path, "is the key of several entries")


def _has_key(entry: EntryName, wanted: EntryName) -> bool:
    """Whether the entry has that key, and that UNIQUE, if one is given."""
    return entry.key == wanted.key and wanted.unique in ("", entry.unique)


def read_found(found: FoundEntry, limit_bytes: int = sys.maxsize, *, system: System = SYSTEM) -> bytes:
    """Read the entry's bytes. Raises EntryNotFound, EntryMalformed, EntryTooLarge, StorageFault's kinds."""
    try:
        return reading.read_entry(found.path, limit_bytes, system=system)
    except FileNotFoundError as fault:
        raise EntryNotFound(found.key, found.directory) from fault


def requeue(layout: Layout, found: FoundEntry, *, system: System = SYSTEM) -> str:
    """Move a dead letter back to `new/`, with all counters at zero; its reason stays for a week.

    If its handlers were done, they run again: what they had committed is not published any more, but for a handoff's.
    Returns the waiting name. Raises EntryNotFound, UniqueKeyHeld and StorageFault's kinds.
    """
    before = found.entry
    fresh = EntryName(
        key=before.key, unique=before.unique, outputs=before.outputs, returns=before.returns + 1
    )
    if before.is_handled:
        fresh = replace(fresh, unique=system.token(5), outputs="")
    if IN_KEY in before.key:
        try:  # else a late unlink of its burial could free what holds the key for the requeued entry
            free_marker(layout, before, found.directory, system=system)
        except OSError as fault:
            raise_named(layout.path, fault)
        Markers(layout, host="requeued", system=system).retake(fresh.waiting())
    return _to_new(layout, found, fresh, system)


def release_deferred(layout: Layout, found: FoundEntry, *, system: System = SYSTEM) -> str:
    """Move a deferred entry to `new/` before it is due; its counters are kept. Returns the waiting name."""
    return _to_new(layout, found, found.entry.promoted(), system)


def delete(layout: Layout, found: FoundEntry, *, system: System = SYSTEM) -> None:
    """Remove the entry for good, a dead letter with its reason. Raises EntryNotFound and StorageFault's kinds.

    A claimed entry is refused by EntryClaimed, since a worker holds it. A directory, which may hold anything, is left
    to its owner: EntryMalformed.
    """
    if found.folder == "claimed":
        raise EntryClaimed(found.key, layout.path)
    system = confined_to(layout.path, system)
    journal = None if found.folder == "kept" else journal_of(layout, system)  # what is kept has ended
    if journal is not None:
        journal.record_end("delete", found.key, handoffs=found.entry.handoffs)
    try:
        if found.folder == "kept":
            system.unlink(found.path)
        elif found.folder == "dead" or (
            IN_KEY in found.name and stat.S_ISDIR(system.lstat(found.path).st_mode)
        ):
            free_marker_of(layout, found.entry, found.directory, system=system)
            system.unlink(found.path)
        else:
            end_entry(layout, found.path, found.key, system=system)
    except FileNotFoundError as fault:
        if journal is not None:
            journal.record_kept(found.key)
        raise EntryNotFound(found.key, found.directory) from fault
    except IsADirectoryError as fault:
        if journal is not None:
            journal.record_kept(found.key)
        what = "a directory (remove it with `rm -r`, if nothing in it is wanted)"
        raise EntryMalformed(found.path, what) from fault
    except OSError as fault:
        raise_named(found.path, fault)
    if found.folder in ("dead", "undeliverable"):
        durable.discard(reasons.reason_path(layout, found.entry), system)


def clear(layout: Layout, folder: Folder, *, system: System = SYSTEM) -> int:
    """Delete the folder's entries; returns how many. An entry that is claimed meanwhile is left to its claimer.

    Raises StorageFault's kinds; EntryMalformed at the end, for a directory that is left.
    """
    deleted, left, system = 0, None, confined_to(layout.path, system)
    with one_round(system):
        for found in list_entries(layout, folder, system=system):
            try:
                delete(layout, found, system=system)
                deleted += 1
            except EntryNotFound:
                pass
            except EntryMalformed as fault:
                left = left or fault
    if left is not None:
        raise left
    return deleted


def _to_new(layout: Layout, found: FoundEntry, entry: EntryName, system: System) -> str:
    system = confined_to(layout.path, system)
    name = names.with_usable_key(entry, "requeued", system).waiting()
    if (journal := journal_of(layout, system)) is not None:
        journal.record_move(entry.key, f"{layout.new}/{name}")
    try:
        system.rename(found.path, f"{layout.new}/{name}")
    except OSError as fault:
        # If it was moved and the reply was lost, the entry is there, or claimed already, which looks like gone.
        if fault.errno not in doubt.DOUBTFUL or not doubt.is_listed(layout.new, name, system):
            if isinstance(fault, FileNotFoundError):
                raise EntryNotFound(found.key, found.directory) from fault
            raise_named(found.path, fault)
    return name


def _both(folder: Folder, new: str, cur: str, system: System) -> Iterator[FoundEntry]:
    for directory in (new, cur):
        yield from (FoundEntry(folder, directory, name) for name in scan.entries(directory, system=system))


def is_claimed(name: str) -> bool:
    """Whether a claim or a pop has made this name of `cur/`, and not a mail reader."""
    return names.owner_of(name) is not None or names.is_popped(name)


def _is_waiting(layout: Layout, name: str, system: System) -> bool:
    if "/" in name or not name or not names.is_entry(name):
        return False
    try:
        system.lstat(f"{layout.new}/{name}")
    except OSError:  # a listing decides
        return False
    return True
