"""Taking an entry at most once, without a lease: one rename to a name of one's own, a read, the final unlink.

A crash may leave an entry under such a name: a keeper returns it to `new/` after the TTL (see `upkeep.reclaim`). The
unlink of a process that was only slow then finds it gone, and the process does not use a message that another may have.
"""

from __future__ import annotations

import math

from maildefer.errors import EntryMalformed, StorageFault, raise_named, storage_fault
from maildefer.maildir import doubt, names, reading
from maildefer.maildir.due import clock_of
from maildefer.maildir.journal import End, journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.ends import end_entry, free_marker_of, touch
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import dead_name, write_reason
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.scan import FoundEntry
from maildefer.maildir.system import SYSTEM, System

_NO_LIMIT = 1 << 62


class Popped:
    """An entry that this process holds, without a lease; for one thread."""

    def __init__(self, layout: Layout, entry: EntryName, name: str, host: str, system: System) -> None:
        self.entry = entry
        self.path = f"{layout.cur}/{name}"
        self._layout = layout
        self._name = name
        self._host = host
        self._system = system
        self._returned: EntryName | None = None

    def read(self, limit_bytes: int = _NO_LIMIT) -> bytes | None:
        """Read the bytes; None if the entry is gone, or was no file and is a dead letter now.

        Raises EntryTooLarge, the entry still being held; StorageFault's kinds, the entry being put back into `new/`.
        """
        try:
            return reading.read_entry(self.path, limit_bytes, system=self._system)
        except FileNotFoundError:
            return None
        except EntryMalformed as fault:
            try:
                self.bury(str(fault))
            except OSError as worse:
                raise_named(self._layout.dead_new, worse)
            return None
        except StorageFault:
            try:
                self.move_to(self._layout.new)
            except OSError:  # a keeper returns it after the TTL
                pass
            raise

    def unlink(self, how: End = "pop", *, sure_until: float = -math.inf) -> bool:
        """Remove the entry. True only if this call removed it: only then may its bytes be used (at most once).

        Until `sure_until`, on the boot clock, no keeper returns it: if it is gone then, the first reply was lost.
        """
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.record_end(how, self.entry.key, handoffs=self.entry.handoffs)
        try:
            end_entry(self._layout, self.path, self.entry.key, system=self._system)
        except FileNotFoundError:
            if self._system.boottime() < sure_until:
                return True
            if journal is not None:
                journal.record_kept(self.entry.key)
            return False
        except OSError as fault:
            raise_named(self.path, fault)
        return True

    @property
    def returned(self) -> EntryName:
        """The entry's name after a move (I4); in a shared queue a name that no other entry can have (I2)."""
        if self._returned is None:
            entry = self.entry
            if is_shared_at(self._layout.path, self._system):
                entry = names.with_unique(entry, names.unique_of(self._name), self._host, self._system)
            self._returned = entry.promoted()
        return self._returned

    def bury(self, reason: str) -> None:
        """Move the entry to the dead letters, after writing the reason beside it. Raises OSError."""
        dead = self.returned
        self._returned = EntryName.parse(dead_name(dead))
        write_reason(self._layout, dead, reason, {}, host=self._host, system=self._system)
        self.move_to(self._layout.dead_new)

    def move_to(self, directory: str) -> None:
        """Move the entry to another folder of the same filesystem, under its next name (I4). Raises OSError."""
        destination = f"{directory}/{self.returned.waiting()}"
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.record_move(self.entry.key, destination)
        try:
            self._system.rename(self.path, destination)
        except FileNotFoundError:  # a keeper has returned it to new/, where it is safe as well
            return
        if directory != self._layout.new:
            free_marker_of(self._layout, self.entry, directory, system=self._system)


def pop_entry(
    layout: Layout, found: FoundEntry, *, host: str, is_early: bool = False, system: System = SYSTEM
) -> Popped | None:
    """Take the entry that was seen waiting; None if another process was first, or if it is not due.

    With `is_early`, it may be taken before it is due. Raises StorageFault's kinds.
    """
    system = confined_to(layout.path, system)
    entry = names.with_usable_key(found.entry, host, system)
    if not is_early and not _is_due(entry, layout, system):
        return None
    touch(layout, entry.key, system=system)
    name = names.pop_name(entry, system)
    try:
        system.rename(found.path, f"{layout.cur}/{name}")
    except OSError as fault:
        if fault.errno not in doubt.DOUBTFUL:
            raise_named(found.path, fault)
        try:
            is_ours = doubt.is_listed(layout.cur, name, system)
        except OSError as worse:  # if the entry is ours, a keeper returns it after the TTL
            raise_named(layout.cur, worse)
        if not is_ours:
            if isinstance(fault, FileNotFoundError):
                return None
            raise storage_fault(found.path, fault) from fault
    return Popped(layout, entry, name, host, system)


def _is_due(entry: EntryName, layout: Layout, system: System) -> bool:
    try:
        return entry.due is None or entry.due <= clock_of(layout, system).now()
    except OSError as fault:
        raise_named(layout.tmp, fault)
