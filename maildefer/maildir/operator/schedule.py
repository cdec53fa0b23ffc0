"""Cancelling, rescheduling, holding and moving an entry that waits or is deferred.

Any process on any host may do this while pools run: what a worker holds, or has handled, is left alone, also where what
its handlers have sent is yet to be published.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from maildefer.errors import EntryNotFound, MaildeferError, raise_named
from maildefer.maildir import doubt, names
from maildefer.maildir.due import report_push
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout, mend, read_format
from maildefer.maildir.markers.ends import free_marker_of, touch
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.pop import pop_entry
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import is_shared_at
from maildefer.maildir.scan import FoundEntry
from maildefer.maildir.system import SYSTEM, System

_NEVER: Final = names.MAX_DUE  # the due time of what is held
_TRIES: Final = 3  # a keeper may promote the entry meanwhile, or another process reschedule it


def cancel(layout: Layout, key: str, *, host: str, system: System = SYSTEM) -> bool:
    """Remove the entry of that key; False if it is claimed, was handled, or never was. Raises StorageFault's kinds.

    It is moved to a name of this process's own first, so that a lost reply can't hide which of these it is.
    """
    system = confined_to(layout.path, system)
    for found in _seen(layout, key, system):
        sure_until = system.boottime() + read_format(layout, system=system).ttl_seconds
        taken = pop_entry(layout, found, host=host, is_early=True, system=system)
        if taken is not None and taken.unlink("delete", sure_until=sure_until):
            return True
    return False


def reschedule(layout: Layout, key: str, due: int | None, *, host: str, system: System = SYSTEM) -> None:
    """Have the entry of that key tried at its new due time, None being now; all its counters are kept.

    Raises EntryNotFound if it is claimed, was handled, or never was; StorageFault's kinds.
    """
    system = confined_to(layout.path, system)
    for found in _seen(layout, key, system):
        if move(layout, found, due, host=host, system=system):
            return
    raise EntryNotFound(key, layout.path)


def move(layout: Layout, found: FoundEntry, due: int | None, *, host: str, system: System = SYSTEM) -> bool:
    """Move an entry to its new due time by one rename. Raises StorageFault's kinds.

    False if another process has moved it, or its handlers are done and what they have sent is yet to be published.
    """
    system, entry = confined_to(layout.path, system), found.entry
    if entry.outputs:
        return False
    if due is None and entry.due is None:
        return True
    entry = names.with_usable_key(entry, host, system)
    touch(layout, entry.key, system=system)
    if is_shared_at(
        layout.path, system
    ):  # in cur/ is what a mail reader has moved, or `pop` has left: named afresh
        kept = "" if found.path.startswith(f"{layout.cur}/") else entry.unique
        entry = names.with_unique(entry, kept, host, system)
    path = f"{layout.new}/{entry.promoted().waiting()}"
    if due is not None:
        path = f"{layout.later_new}/{entry.deferred(due)}"
    return _rename(layout, found, entry.key, path, system)


def is_held(entry: EntryName) -> bool:
    """Whether an operator has put the entry aside by `hold`."""
    return entry.due == _NEVER


def hold(layout: Layout, found: FoundEntry, *, host: str, system: System = SYSTEM) -> bool:
    """Defer an entry until `unhold`; False if another process has moved it. Raises StorageFault's kinds."""
    return move(layout, found, _NEVER, host=host, system=system)


def unhold(layout: Layout, found: FoundEntry, *, now: float, host: str, system: System = SYSTEM) -> bool:
    """Have a held entry tried at once, or when it was pushed for, if that is to come. As `move`."""
    due = EntryName.parse(names.first_name(found.entry.key)).due
    return move(layout, found, due if due is not None and due > now else None, host=host, system=system)


def move_to(layout: Layout, found: FoundEntry, other: Layout, *, host: str, system: System = SYSTEM) -> bool:
    """Move an entry that nobody has claimed to another queue on the same filesystem, in one rename, as a handoff does.

    Its attempts begin at zero, its due time is kept. False as of `move`; raises MaildeferError for a queue on another
    filesystem, and StorageFault's kinds.
    """
    system = confined_to(layout.path, system)
    if found.entry.outputs:
        return False
    entry = names.with_usable_key(found.entry, host, system)
    if is_shared_at(other.path, system) or is_shared_at(layout.path, system):
        entry = names.with_unique(entry, "", host, system)
    folder = other.new if entry.due is None else other.later_new
    try:
        moved = _rename(layout, found, entry.key, f"{folder}/{entry.handed_on().waiting()}", system)
    except MaildeferError as fault:
        if isinstance(fault.__cause__, OSError) and fault.__cause__.errno == errno.EXDEV:
            raise MaildeferError(
                f"{other.path} is on another filesystem than {layout.path}: an entry can't be moved there at once"
            ) from fault
        raise
    if moved and IN_KEY in found.entry.key:
        free_marker_of(layout, found.entry, folder, system=system)
    return moved


def _rename(layout: Layout, found: FoundEntry, key: str, path: str, system: System) -> bool:
    """Move the entry, and tell this host's pool; False if another process was first."""
    if (journal := journal_of(layout, system)) is not None:
        journal.record_move(key, path)
    try:
        system.rename(found.path, path)
    except OSError as fault:
        if gone := isinstance(fault, FileNotFoundError):
            with suppress(MaildeferError):  # the folder may be missing
                mend(layout, system=system)
        # If it was moved and the reply was lost, the entry is there, or was promoted or claimed, which looks like gone.
        folder, _, name = path.rpartition("/")
        try:
            if fault.errno in doubt.DOUBTFUL and doubt.is_listed(folder, name, system):
                return True
        except OSError as worse:
            raise_named(folder, worse)
        if gone:
            return False
        raise_named(found.path, fault)
    report_push(path)
    return True


def _seen(layout: Layout, key: str, system: System) -> Iterator[FoundEntry]:
    """Yield the place where the entry was pushed, if the key says it, then where listings show it.

    Deferred entries are listed first: one that is promoted meanwhile is then seen waiting.
    """
    entries.ensure_key(key)
    if (name := names.first_name(key)) != key:  # spares the listing of many deferred entries
        yield FoundEntry("deferred", layout.later_new, name)
    for _ in range(_TRIES):
        for folder in (layout.later_new, layout.new):
            with suppress(OSError):  # an NFS client's stale listing is dropped where this user may change it
                system.utime(folder)
        try:
            found = entries.find(layout, key, ("deferred", "waiting"), system=system)
        except EntryNotFound:
            return
        if found.entry.outputs:
            return
        yield found
