"""A dead letter of a unique key that a mail reader has moved to `new/`: it has no marker, as a requeue makes one.

So whoever is about to claim it makes the marker first, under the entry's present name, or buries it again.
"""

from __future__ import annotations

from contextlib import suppress

from maildefer.errors import UniqueKeyHeld, raise_named
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers import ends
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import path_in_key
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import dead_name, write_reason
from maildefer.maildir.system import System


def hold(layout: Layout, name: str, entry: EntryName, *, host: str, system: System) -> bool:
    """Have an entry that waits as `name` hold its unique key; False if another does, and it was buried.

    An entry that was handed on has no marker in this queue. Raises StorageFault's kinds; it must not be claimed then.
    """
    if ends.touch(layout, entry.key, system=system) or entry.handoffs or entry.outputs:
        return True
    if path_in_key(layout, entry.key) is None:  # it only looks as if it had one
        return True
    try:
        Markers(layout, host=host, system=system).retake(entry.waiting())
    except UniqueKeyHeld as fault:
        _bury(layout, name, entry.returned(), str(fault), host, system)
        return False
    return True


def _bury(layout: Layout, name: str, dead: EntryName, reason: str, host: str, system: System) -> None:
    destination = f"{layout.dead_new}/{dead_name(dead)}"
    try:
        write_reason(layout, dead, reason, {}, host=host, system=system)
        if (journal := journal_of(layout, system)) is not None:
            journal.record_move(dead.key, destination)
        with suppress(FileNotFoundError):  # another process was first
            system.rename(f"{layout.new}/{name}", destination)
    except OSError as fault:
        raise_named(destination, fault)
