"""Finding a marker: carrying out what is left of its push, freeing it once its entry has ended."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, NamedTuple

from maildefer.maildir import doubt, durable
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.layout import Layout, read_format
from maildefer.maildir.markers.ends import finish_requeue, sync_move
from maildefer.maildir.markers.names import DRAFT, ENDED, UNIQUE, MarkerState
from maildefer.maildir.markers.presence import is_gone, touch_marker
from maildefer.maildir.system import SYSTEM, System

_TRIES: Final = 5


class Marked(NamedTuple):
    """The entry of a name: the one that this push has made (`is_new`), or the one that was found."""

    key: str
    is_new: bool


class MarkerFinder:
    """Looks at the markers of one queue; any thread. All calls raise OSError."""

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self.folder = f"{layout.control}/{UNIQUE}"
        self._layout = layout
        self._system = system
        self.placer = DraftPlacer(layout, system=system)
        self._commit = durable.DirectorySync(self.folder, system=system)
        self._is_folder_synced = False
        self._known_ttl = 0.0

    def found(self, place: str, *, afresh: bool = False) -> Marked | None:
        """Return the entry that holds the place; None if the place is free, or was freed by this call.

        `afresh`: a rename has found it held, so that an earlier look-up in vain of this client must not count.
        """
        for _ in range(_TRIES):
            try:
                if afresh:
                    self.look_up_anew()
                state = MarkerState.of(doubt.fresh_listing(place, self._system))
                is_held = bool(state.marker) and not state.has_ended and not self._is_over(place, state)
            except FileNotFoundError:  # there is none, or it was freed meanwhile
                return None
            if not is_held:
                with suppress(FileNotFoundError):  # freed by another process
                    self._free(place, state)
                return None
            if (found := self._finished(place, state)) is not None:
                return found
        return None

    def is_there(self, place: str) -> bool:
        """Whether anything may be there, by the cheapest look: where it is wrong, the rename of a new marker tells."""
        try:
            doubt.set_time(place, self._system)
        except FileNotFoundError:
            return False
        return True

    def look_up_anew(self) -> None:
        """Have an NFS client forget which markers it has looked up in vain, by a change of its own to their folder."""
        self._system.utime(self.folder)

    def sync_markers(self) -> None:
        """Make the names of the markers durable; at first also that of their folder, which may be new."""
        if not self._is_folder_synced:
            durable.sync_directory(self._layout.control, system=self._system)
            self._is_folder_synced = True
        self._commit.sync()

    def move_entry(self, place: str, marker: str) -> bool:
        """Move an entry from beside its marker to where it waits; False if another process has, or it has ended."""
        draft = f"{place}/{marker}{DRAFT}"
        try:
            self._system.rename(draft, self.placer.place_of(marker))
        except OSError as fault:
            return bool(self.placer.move_left([(draft, marker)], fault))
        return True

    def _is_over(self, place: str, state: MarkerState) -> bool:
        """Whether a marker is to be freed that no evidence says it of: its entry is nowhere.

        It is looked for only if nobody has seen it for the TTL, by the mount's time.
        """
        if state.has_draft:
            return False
        if state.is_requeues:
            self.sync_markers()
            finish_requeue(self._layout, state.marker, system=self._system)
        system, marker = self._system, f"{place}/{state.marker}"
        age_seconds = system.lstat(place).st_mtime - system.lstat(marker).st_mtime
        if age_seconds < self._ttl_seconds:
            return False
        if is_gone(self._layout, state.key, self.placer.place_of(state.marker), marker, system=system):
            return True
        touch_marker(marker, system)
        return False

    def _free(self, place: str, state: MarkerState) -> None:
        """Free the place, if anything is in it: what ended is durable first, then the marker goes, then that."""
        if state.ended:
            sync_move(self._layout, place, self._system)
        for name in (state.marker, *(f"{key}{ENDED}" for key in state.ended)):
            if name:
                with suppress(FileNotFoundError):  # another process was first
                    self._system.unlink(f"{place}/{name}")

    def _finished(self, place: str, state: MarkerState) -> Marked | None:
        """Carry out what is left of the push that has made a marker, and return its entry.

        None if another process was first, and has moved the entry or withdrawn it: another listing tells.
        """
        self.sync_markers()
        if state.has_draft and not self.move_entry(place, state.marker):
            return None
        self.placer.commit([state.marker], [state.key] if state.has_draft else [])
        if not state.has_draft:
            self.placer.note_repeated([state.key])
        return Marked(key=state.key, is_new=False)

    @property
    def _ttl_seconds(self) -> float:
        if not self._known_ttl:
            self._known_ttl = read_format(self._layout, system=self._system).ttl_seconds
        return self._known_ttl
