"""Taking an entry at most once, under no lease: one rename to a name of one's own, a read, the final unlink.

What a crash leaves under such a name goes back to `new/` after the TTL (see `recover`); an unlink then finds it gone,
and nothing is handed out that somebody else may have.
"""

from __future__ import annotations

from maildefer.errors import EntryMalformed, StorageFault, raise_named, storage_fault
from maildefer.maildir import doubt, names, reading
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.maildir.reasons import write_reason
from maildefer.maildir.rights.confined import inside
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.system import SYSTEM, System

_NO_LIMIT = 1 << 62


class Popped:
    """An entry that is in this process's hands; not durably, and for one thread."""

    def __init__(self, layout: Layout, entry: EntryName, name: str, host: str, system: System) -> None:
        self.entry = entry
        self.path = f"{layout.cur}/{name}"
        self._layout = layout
        self._name = name
        self._host = host
        self._system = system
        self._returned: EntryName | None = None

    def read(self, limit_bytes: int = _NO_LIMIT) -> bytes | None:
        """The bytes; None when the entry is gone, or was no file and is a dead letter now.

        Raises EntryTooLarge, still in hand; StorageFault's kinds, with the entry put back.
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
            except OSError:  # a keeper does it, after the TTL
                pass
            raise

    def unlink(self) -> bool:
        """End the entry. True only when this call did it: the bytes may then be handed out (at most once)."""
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.ends("pop", self.entry.key, handoffs=self.entry.handoffs)
        try:
            self._system.unlink(self.path)
        except FileNotFoundError:
            if journal is not None:
                journal.kept(self.entry.key)
            return False
        except OSError as fault:
            raise_named(self.path, fault)
        return True

    @property
    def returned(self) -> EntryName:
        """As it is called once it was moved elsewhere (I4); in a shared queue as no other entry can be (I2)."""
        if self._returned is None:
            entry = self.entry
            if is_shared_at(self._layout.path, self._system):
                entry = names.set_apart(entry, names.unique_of(self._name), self._host, self._system)
            self._returned = entry.returned()
        return self._returned

    def bury(self, reason: str) -> None:
        """To the dead letters, the reason beside it first. Raises OSError."""
        dead = self.returned
        write_reason(self._layout, dead, reason, {}, host=self._host, system=self._system)
        self.move_to(self._layout.dead_new)

    def move_to(self, directory: str) -> None:
        """Put the entry elsewhere on the same filesystem, under its next name (I4). Raises OSError."""
        destination = f"{directory}/{self.returned.waiting()}"
        if (journal := journal_of(self._layout, self._system)) is not None:
            journal.moves(self.entry.key, destination)
        try:
            self._system.rename(self.path, destination)
        except FileNotFoundError:  # returned to new/ by a keeper, which has come to the same
            pass


def take(layout: Layout, found: FoundEntry, *, host: str, system: System = SYSTEM) -> Popped | None:
    """Take the entry that was seen waiting; None when somebody was first. Raises StorageFault's kinds."""
    system = inside(layout.path, system)
    entry = names.carried(found.entry, host, system)
    name = names.pop_name(entry, system)
    try:
        system.rename(found.path, f"{layout.cur}/{name}")
    except OSError as fault:
        if fault.errno not in doubt.DOUBTFUL:
            raise_named(found.path, fault)
        try:
            is_ours = doubt.listed(layout.cur, name, system)
        except OSError as worse:  # if it is, a keeper puts it back after the TTL
            raise_named(layout.cur, worse)
        if not is_ours:
            if isinstance(fault, FileNotFoundError):
                return None
            raise storage_fault(found.path, fault) from fault
    return Popped(layout, entry, name, host, system)
