"""Finding a marker: carrying out what is left of its push, freeing it once its entry has ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from maildefer.maildir import doubt, durable, names
from maildefer.maildir.due import report_push
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout, mend, read_format
from maildefer.maildir.markers.ends import finish_requeue
from maildefer.maildir.markers.names import DRAFT, ENDED, UNIQUE, MarkerState
from maildefer.maildir.markers.presence import is_gone, touch_marker
from maildefer.maildir.system import SYSTEM, System

_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """The entry of a name: the one that this push has made (`is_new`), or the one that was found."""

    key: str
    is_new: bool


class MarkerFinder:
    """Looks at the markers of one queue; any thread. All calls raise OSError."""

    def __init__(self, layout: Layout, *, system: System = SYSTEM) -> None:
        self.folder = f"{layout.control}/{UNIQUE}"
        self._layout = layout
        self._system = system
        self._journal = journal_of(layout, system)
        synced = self.folder, layout.new, layout.later_new
        self._commits = {path: durable.DirectorySync(path, system=system) for path in synced}
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

    def look_up_anew(self) -> None:
        """Have an NFS client forget which markers it has looked up in vain, by a change of its own to their folder."""
        self._system.utime(self.folder)

    def sync_markers(self) -> None:
        """Make the names of the markers durable; at first also that of their folder, which may be new."""
        if not self._is_folder_synced:
            durable.sync_directory(self._layout.control, system=self._system)
            self._is_folder_synced = True
        self._commits[self.folder].sync()

    def sync_entry(self, marker: str) -> None:
        """Make the place of an entry durable, and say so in the journal."""
        path = self._entry_path(marker)
        self._commits[path.rpartition("/")[0]].sync()
        report_push(path)

    def record_push(self, key: str) -> None:
        if self._journal is not None:
            self._journal.record_pushes([key])

    def move_entry(self, place: str, marker: str) -> bool:
        """Move an entry from beside its marker to where it waits; False if another process has, or it has ended."""
        for last in (False, True):
            try:
                self._system.rename(f"{place}/{marker}{DRAFT}", self._entry_path(marker))
                return True
            except OSError as fault:
                if fault.errno not in doubt.DOUBTFUL:
                    raise
                if not self._has_draft(place, marker):
                    return False
                if last or not isinstance(fault, FileNotFoundError):
                    raise
                mend(self._layout, system=self._system)  # its folder may be missing
        return False

    def _has_draft(self, place: str, marker: str) -> bool:
        try:
            self.look_up_anew()
            return doubt.is_listed(place, f"{marker}{DRAFT}", self._system)
        except FileNotFoundError:  # the entry has ended meanwhile, and its marker is freed
            return False

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
        if is_gone(self._layout, state.key, self._entry_path(state.marker), marker, system=system):
            return True
        touch_marker(marker, system)
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
        self.sync_markers()
        if state.has_draft and not self.move_entry(place, state.marker):
            return None
        self.sync_entry(state.marker)
        if state.has_draft:
            self.record_push(state.key)
        return Marked(key=state.key, is_new=False)

    def _entry_path(self, marker: str) -> str:
        """Return the path at which the entry of a marker is put."""
        first = names.first_name(marker)
        return f"{self._layout.new if first == marker else self._layout.later_new}/{first}"

    @property
    def _ttl_seconds(self) -> float:
        if not self._known_ttl:
            self._known_ttl = read_format(self._layout, system=self._system).ttl_seconds
        return self._known_ttl
