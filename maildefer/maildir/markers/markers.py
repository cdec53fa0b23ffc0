"""Pushing an entry under a marker, so that of all pushes of one name only one makes an entry.

1. The entry and its marker are written to a folder in `tmp/`, and synced.
2. That folder is renamed to `.maildefer/FOLDER/HASH`, and the new name is synced. The filesystem refuses to rename a
   folder to one that is not empty. Its name in `tmp/` is never used again, so a request that is sent again, or that
   arrives late, finds nothing.
3. The entry is moved from there to `new/`, or to `.later/` until it is due, and that is synced.

Whoever finds a marker whose entry is still beside it carries out step 3, so a process that dies after step 2 holds up
nobody. An entry is moved only once, so a late duplicate of that rename can't bring back what was handled.
A marker is freed by the unlink of exactly its own name, so a late unlink never frees another's.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from maildefer.errors import MarkersRefused, QueueMissing, StaleHandle, raise_named
from maildefer.maildir import doubt, durable, names
from maildefer.maildir.draft import Draft
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout, mend, read_format
from maildefer.maildir.markers.drafts import MarkerDraft
from maildefer.maildir.markers.names import (
    DRAFT,
    ENDED,
    IN_KEY,
    MarkerState,
    hash_of,
    must_be_fact,
)
from maildefer.maildir.markers.presence import is_gone
from maildefer.maildir.rights.modes import Rights, make_in, rights_in
from maildefer.maildir.system import SYSTEM, System

Compose = Callable[[str], Sequence[bytes | memoryview] | Draft]
_HELD: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY})
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """The entry of a name: the one that this push has made (`is_new`), or the one that was found."""

    key: str
    fact: str
    is_new: bool


class _Swept(Exception):
    """A folder in `tmp/` was taken away, or its entry was pushed by somebody else and has ended."""


class Markers:
    """The markers of one folder of one queue; for any thread, process and host at any time.

    >>> ticks = Markers(layout, "ticks", host="mx1-0a1b2c", kept_seconds=7 * 86400)    # doctest: +SKIP
    >>> marked = ticks.push("nightly@1700000000", lambda stem: [block(stem), data])    # doctest: +SKIP
    >>> marked.key, marked.is_new                                                      # doctest: +SKIP

    Without `kept_seconds`, for the folder `unique` alone, a marker is freed when its entry has ended: was acked,
    buried, handed to another queue, or deleted. Else it is kept for so long after its push, by the mount's time,
    whatever becomes of the entry.
    """

    def __init__(
        self,
        layout: Layout,
        folder: str,
        *,
        host: str,
        kept_seconds: float | None = None,
        system: System = SYSTEM,
    ) -> None:
        self._layout = layout
        self._folder = f"{layout.control}/{folder}"
        self._host = host
        self._kept_seconds = kept_seconds
        self._system = system
        self._journal = journal_of(layout, system)
        synced = self._folder, layout.new, layout.later_new
        self._commits = {path: durable.DirectorySync(path, system=system) for path in synced}
        self._known_rights: Rights | None = None
        self._known_ttl = 0.0

    def push(self, name: str, compose: Compose, *, fact: str = "") -> Marked:
        """Push what `compose(stem)` returns, unless there is an entry of that name; returns this or that entry's key.

        When it returns, the entry and its marker are on stable storage, also those that were found. `fact`, at most 64
        hexadecimal digits, is kept in the marker's name, for whoever finds it. `compose` may be called more than once,
        or not at all; where it returns a `Draft`, the caller discards that if it was not called. Raises TypeError and
        UniqueKeyRefused for a name, MarkersRefused for a user who may only put entries in, QueueMissing, StorageFault's
        kinds, and what `compose` raises. The entry may be handled after a MountFault, and where the
        last sync failed; whoever tries again is told of it.
        """
        place = f"{self._folder}/{hash_of(name)}"
        must_be_fact(fact)
        try:
            for _ in range(_TRIES):
                if (marked := self._found(place) or self._push_new(place, compose, fact)) is not None:
                    return marked
        except OSError as fault:
            self._raise(fault)
        raise StaleHandle(place, OSError(errno.ESTALE, "files in tmp/ are taken away while being written"))

    def find(self, name: str) -> Marked | None:
        """Return the entry of that name, if there is one, as `push` does. Raises what `push` raises."""
        try:
            return self._found(f"{self._folder}/{hash_of(name)}")
        except OSError as fault:
            self._raise(fault)

    def _raise(self, fault: OSError) -> NoReturn:
        if fault.errno in (errno.EACCES, errno.EPERM):
            raise MarkersRefused(self._folder, fault) from fault
        if fault.errno == errno.ENOENT:
            raise QueueMissing(self._layout.path) from fault
        raise_named(self._folder, fault)

    # Finding a marker

    def _found(self, place: str, *, afresh: bool = False) -> Marked | None:
        """Return the entry that holds the place; None if the place is free, or was freed by this call.

        `afresh`: a rename has found it held, so that an earlier look-up in vain of this client must not count.
        """
        for _ in range(_TRIES):
            try:
                if afresh:
                    self._system.utime(self._folder)
                state = MarkerState.of(doubt.fresh_listing(place, self._system))
                is_held = bool(state.marker) and not state.has_ended and not self._is_over(place, state)
            except FileNotFoundError:  # there is none, or it was freed meanwhile
                return None
            if not is_held:
                self._free(place, state)
                return None
            if (found := self._finished(place, state)) is not None:
                return found
        return None

    def _is_over(self, place: str, state: MarkerState) -> bool:
        """Whether a marker is to be freed that no evidence says it of: kept for long enough, or without an entry.

        An entry is looked for only if nobody has seen it for the TTL, by the mount's time.
        """
        if state.has_draft:
            return False
        system, marker = self._system, f"{place}/{state.marker}"
        age_seconds = system.lstat(place).st_mtime - system.lstat(marker).st_mtime
        if self._kept_seconds is not None:
            return age_seconds >= self._kept_seconds
        if age_seconds < self._ttl_seconds:
            return False
        if is_gone(self._layout, state.key, self._entry_path(state.marker), marker, system=system):
            return True
        system.utime(marker)
        return False

    def _free(self, place: str, state: MarkerState) -> None:
        """Free the place, if anything is in it: what ended is durable first, then the marker goes, then that."""
        if state.ended:
            durable.sync_directory(place, system=self._system)
        for name in (state.marker, *(f"{key}{ENDED}" for key in state.ended)):
            if name:
                with suppress(FileNotFoundError):  # another process was first
                    self._system.unlink(f"{place}/{name}")

    def _finished(self, place: str, state: MarkerState) -> Marked | None:
        """Carry out what is left of the push that has made a marker, and return its entry.

        None if another process was first, and has moved the entry or withdrawn it: another listing tells.
        """
        self._commits[self._folder].sync()
        if state.has_draft and not self._move(place, state.marker):
            return None
        self._sync_entry(state.marker)
        if state.has_draft and self._journal is not None:
            self._journal.record_pushes([state.key])
        return Marked(key=state.key, fact=state.fact, is_new=False)

    # Making one

    def _push_new(self, place: str, compose: Compose, fact: str) -> Marked | None:
        """Make an entry with its marker, or return the one that came first; None if the caller has to begin again."""
        stem = names.fresh_stem(self._host, self._system)
        if self._kept_seconds is None:
            stem += f"{IN_KEY}{place.rpartition('/')[2]}"
        chunks = compose(stem)
        data = chunks if isinstance(chunks, Draft) else b"".join(chunks)
        key = data.key if isinstance(data, Draft) else names.sized(stem, len(data))
        draft = self._begun(f"{key}:{fact}" if fact else key)
        held = False
        try:
            draft.write(data)
            for _ in range(_TRIES):
                held = self._take(draft, place)
                if held:
                    self._place(draft, place)
                    return Marked(key=key, fact=fact, is_new=True)
                if (found := self._found(place, afresh=True)) is not None:
                    return found
        except (FileExistsError, _Swept):  # after a CREATE whose reply was lost; or nothing is left of it
            pass
        finally:
            if held:
                draft.close()
            else:
                draft.discard(place)
        return None

    def _begun(self, marker: str) -> MarkerDraft:
        try:
            return MarkerDraft(self._layout, marker, rights=self._rights, system=self._system)
        except FileNotFoundError:
            if not mend(self._layout, system=self._system):
                raise
        return MarkerDraft(self._layout, marker, rights=self._rights, system=self._system)

    def _take(self, draft: MarkerDraft, place: str) -> bool:
        """Rename the folder into its place; False if the place is held. A doubt is settled by listing `tmp/`."""
        for last in (False, True):
            try:
                self._system.rename(draft.path, place)
                return True
            except OSError as fault:
                if fault.errno in _HELD:
                    return False
                if fault.errno not in doubt.DOUBTFUL:
                    raise
                if not doubt.is_listed(self._layout.tmp, draft.name, self._system):
                    if draft.has_link():
                        return True
                    raise _Swept from fault
                if last or fault.errno != errno.ENOENT:
                    raise
                below = self._folder.removeprefix(f"{self._layout.path}/")
                make_in(self._layout.path, below, self._system)
        return False

    def _place(self, draft: MarkerDraft, place: str) -> None:
        """Make the marker durable, and then the entry.

        After a fault the entry is withdrawn, but not from where it waits: another push may have found it there.
        """
        try:
            self._commits[self._folder].sync()
            self._move(place, draft.marker)
        except OSError:
            draft.discard(place)
            raise
        self._sync_entry(draft.marker)
        if self._journal is not None:
            self._journal.record_pushes([draft.key])

    def _move(self, place: str, marker: str) -> bool:
        """Move an entry from beside its marker to where it waits; False if another process has."""
        source = f"{place}/{marker}{DRAFT}"
        for last in (False, True):
            try:
                self._system.rename(source, self._entry_path(marker))
                return True
            except OSError as fault:
                if fault.errno not in doubt.DOUBTFUL:
                    raise
                if not doubt.is_listed(place, f"{marker}{DRAFT}", self._system):
                    return False
                if last or fault.errno != errno.ENOENT or not mend(self._layout, system=self._system):
                    raise
        return False

    def _entry_path(self, marker: str) -> str:
        """Return the path at which the entry of a marker is put."""
        return f"{self._layout.new}/{marker.partition(':')[0]}"

    def _sync_entry(self, marker: str) -> None:
        self._commits[self._entry_path(marker).rpartition("/")[0]].sync()

    @property
    def _rights(self) -> Rights:
        if self._known_rights is None:
            self._known_rights = rights_in(self._layout.path, self._system)
        return self._known_rights

    @property
    def _ttl_seconds(self) -> float:
        if not self._known_ttl:
            self._known_ttl = read_format(self._layout, system=self._system).ttl_seconds
        return self._known_ttl
