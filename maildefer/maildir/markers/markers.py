"""Pushing an entry under a marker, so that of all pushes of one name only one makes an entry.

1. The entry and its marker are written to a folder in `tmp/`, and synced.
2. That folder is renamed to `.maildefer/unique/HASH`, and the new name is synced. The filesystem refuses to rename a
   folder to one that is not empty. Its name in `tmp/` is never used again, so a request that is sent again, or that
   arrives late, finds nothing.
3. The entry is moved from there to `new/`, or to `.later/` until it is due, and that is synced. Where the filesystem
   keeps order (see `durable`), this is the only sync of names.

Whoever finds a marker whose entry is still beside it carries out step 3, so a process that dies after step 2 holds up
nobody. An entry is moved only once, so a late duplicate of that rename can't bring back what was handled.
A marker is freed by the unlink of exactly its own name, so a late unlink never frees another's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from maildefer.errors import MarkersRefused, QueueMissing, StaleHandle, UniqueKeyHeld, raise_named
from maildefer.maildir import names
from maildefer.maildir.drafts.entry import Draft, Planned, mark_priorities
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.drafts import MarkerDraft
from maildefer.maildir.markers.finder import Marked as Marked
from maildefer.maildir.markers.finder import MarkerFinder
from maildefer.maildir.markers.names import (
    IN_KEY,
    hash_of,
    key_in,
    path_in_key,
)
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

Compose = Callable[[str], Sequence[bytes | memoryview] | Draft]
_TRIES: Final = 5


class _Swept(Exception):
    """A folder in `tmp/` was taken away, or its entry was pushed by somebody else and has ended."""


class Markers:
    """The markers of one queue; for any thread, process and host at any time.

    >>> marked = Markers(layout, host="mx1-0a1b2c").push("order-17", lambda stem: [data])    # doctest: +SKIP
    >>> marked.key, marked.is_new                                                            # doctest: +SKIP
    """

    def __init__(self, layout: Layout, *, host: str, system: System = SYSTEM) -> None:
        self._layout = layout
        self._host = host
        self._system = system
        self._finder = MarkerFinder(layout, system=system)
        self._has_priorities = False  # whether this process has said so

    def push(self, unique: str, compose: Compose) -> Marked:
        """Push what `compose(stem)` returns, unless an entry of that unique key has not ended; returns the key of
        the one or the other.

        When it returns, the entry and its marker are on stable storage, also those that were found. `compose` may be
        called more than once, or not at all. Raises TypeError and UniqueKeyRefused for a unique key, MarkersRefused for
        a user who may put entries in, but no markers, QueueMissing, StorageFault's kinds, and what `compose` raises.
        The entry may be handled after a MountFault, and where the last sync failed; whoever tries again is told of it.
        """
        return self._push(f"{self._finder.folder}/{hash_of(unique)}", compose)

    def push_again(self, key: str, compose: Compose) -> Marked:
        """As `push`, under the unique key that the entry of that key was pushed with."""
        place = path_in_key(self._layout, key)
        assert place is not None, key
        return self._push(place, compose)

    def _push(self, place: str, compose: Compose) -> Marked:
        try:
            for _ in range(_TRIES):
                marked = self._finder.found(place) if self._finder.is_there(place) else None
                if (marked := marked or self._push_new(place, compose)) is not None:
                    return marked
        except OSError as fault:
            self._raise(fault)
        raise StaleHandle(place, OSError(errno.ESTALE, "files in tmp/ are taken away while being written"))

    def retake(self, marker: str) -> None:
        """Make the marker of a dead letter that is about to be requeued under that name, and is its latest generation.

        Whoever finds the marker carries out that move. Raises UniqueKeyHeld, and what `push` raises.
        """
        key, place = key_in(marker), path_in_key(self._layout, key_in(marker))
        assert place is not None, marker
        try:
            for _ in range(_TRIES):
                if (found := self._finder.found(place) or self._make(place, marker, None)) is not None:
                    break
        except OSError as fault:
            self._raise(fault)
        if found is None or found.key != key:
            raise UniqueKeyHeld(key, found.key if found is not None else "others, one after the other")

    def _raise(self, fault: OSError) -> NoReturn:
        if fault.errno in (errno.EACCES, errno.EPERM):
            self._must_be_writable()
            raise MarkersRefused(self._finder.folder, fault) from fault
        if fault.errno == errno.ENOENT:
            raise QueueMissing(self._layout.path) from fault
        raise_named(self._finder.folder, fault)

    def _must_be_writable(self) -> None:
        """Raise what a plain push would, for a user who may not put entries in either; StorageFault's kinds."""
        try:
            stem = names.fresh_stem(self._host, self._system)
            Draft(self._layout, stem, rights=self._finder.placer.rights, system=self._system).discard()
        except OSError as fault:  # of the rights; the folder can't be looked at
            raise_named(self._layout.path, fault)

    def _push_new(self, place: str, compose: Compose) -> Marked | None:
        """Make an entry with its marker, or return the one that came first; None if the caller has to begin again."""
        due, part = (compose.due, compose.part) if isinstance(compose, Planned) else (None, "")
        if part and not self._has_priorities:
            mark_priorities(self._layout, self._finder.placer.rights, self._system)
            self._has_priorities = True
        part += f"{IN_KEY}{place.rpartition('/')[2]}"
        stem = names.fresh_stem(self._host, self._system, due, part)
        chunks = compose(stem)
        assert not isinstance(chunks, Draft), "the entry is written beside its marker"
        data = b"".join(chunks)
        return self._make(place, names.sized(stem, len(data)), data)

    def _make(self, place: str, marker: str, data: bytes | None) -> Marked | None:
        held, draft = False, MarkerDraft(self._layout, marker, self._finder.placer.rights, self._system)
        try:
            draft.write_marker(data)
            for _ in range(_TRIES):
                held = self._take(draft, place)
                if held:
                    if data is not None:
                        self._finder.placer.note_origin(draft.key, data)
                    self._place(draft, place)
                    return Marked(key=draft.key, is_new=True)
                if (found := self._finder.found(place, afresh=True)) is not None:
                    return found
        except (FileExistsError, _Swept):  # after a CREATE whose reply was lost; or nothing is left of it
            pass
        finally:
            if held:
                draft.close()
            else:
                draft.withdraw(place)
        return None

    def _take(self, draft: MarkerDraft, place: str) -> bool:
        """Rename the folder into its place; False if the place is held."""
        if not draft.place(place, self._make_folder):
            return False
        if draft.is_doubted:
            if not draft.has_link():
                raise _Swept
            self._finder.look_up_anew()
        return True

    def _make_folder(self) -> None:
        below = self._finder.folder.removeprefix(f"{self._layout.path}/")
        make_in(self._layout.path, below, self._system)

    def _place(self, draft: MarkerDraft, place: str) -> None:
        """Make the marker durable, and then the entry.

        After a fault the entry is withdrawn, but not from where it waits: another push may have found it there.
        """
        try:
            if draft.is_alone or not draft.keeps_order:  # else the entry's sync is one of its marker too
                self._finder.sync_markers()
            if draft.is_alone:
                return
            self._finder.move_entry(place, draft.marker)
        except OSError:
            draft.withdraw(place)
            raise
        self._finder.placer.commit([draft.marker], [draft.key])
