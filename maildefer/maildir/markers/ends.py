"""Ending an entry that has a marker in `unique/`, and freeing that.

What ends an entry leaves evidence, since a process may die before it frees the marker: an entry that is acked or
deleted is moved beside its marker, in one rename; a buried one is among the dead letters, under a name of a later
generation. So whoever finds the marker need not guess. The marker goes only once that evidence is on stable storage:
otherwise a power cut could bring the entry back beside the next one of its name.
"""

from __future__ import annotations

from contextlib import suppress

from maildefer.errors import raise_named
from maildefer.maildir import doubt, durable, scan
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.names import DRAFT, ENDED, key_in, path_in_key
from maildefer.maildir.markers.presence import touch_marker
from maildefer.maildir.names import EntryName
from maildefer.maildir.system import System


def end_entry(layout: Layout, path: str, key: str, *, system: System) -> None:
    """Remove an entry in one rename or unlink, and then free its marker.

    Raises OSError if the entry is where it was, or in doubt, as an unlink would.
    """
    place = path_in_key(layout, key)
    if place is None:
        system.unlink(path)
        return
    ended = f"{place}/{key}{ENDED}"
    try:
        _rename_surely(path, ended, place, system)
    except FileNotFoundError:  # there is no marker; or the entry is gone, which the unlink says too
        system.unlink(path)
        return
    with suppress(OSError):  # whoever finds the marker sees that its entry has ended
        sync_move(layout, place, system)
        _free(place, key, None, system)
        system.unlink(ended)
        system.rmdir(place)


def free_marker_of(layout: Layout, entry: EntryName, folder: str, *, system: System) -> None:
    """Free the marker of an entry that was moved to that folder, where it has ended for this queue; raises nothing."""
    with suppress(OSError):  # it is freed when nobody has found the entry after the TTL
        free_marker(layout, entry, folder, system=system)


def free_marker(layout: Layout, entry: EntryName, folder: str, *, system: System) -> None:
    """As `free_marker_of`; raises OSError if the marker may still be there.

    `entry` is its name before: a marker of a later generation belongs to a requeue that came meanwhile.
    """
    if (place := path_in_key(layout, entry.key)) is not None:
        sync_move(layout, folder, system)
        with suppress(FileNotFoundError):  # its folder has gone
            _free(place, entry.key, entry.returns, system)
        with suppress(OSError):  # gone, or it holds another's
            system.rmdir(place)


def sync_move(layout: Layout, folder: str, system: System) -> None:
    """Sync that an entry has moved to that folder, and before it that it has left those through which it went.

    With a sync of its last folder alone, a filesystem that keeps no order may have it in two after a power cut.
    """
    descriptor = system.open(folder, durable.DIRECTORY)
    try:
        if system.commit(descriptor):
            return  # of all moves at once
        if not durable.keeps_order(system.fstat(descriptor).st_dev):
            for path in (layout.later_new, layout.new, layout.cur):
                with suppress(FileNotFoundError):  # it holds nothing
                    durable.sync_directory(path, system=system)
        durable.sync_directory(folder, system=system, opened=descriptor)
    finally:
        system.close(descriptor)


def finish_requeue(layout: Layout, marker: str, *, system: System) -> None:
    """Move a dead letter to `new/` for which a requeue has made this marker, if that has not happened. Raises OSError.

    Nothing else would stop a late request of that requeue from moving it, after the marker has been freed.
    """
    entry = EntryName.parse(marker)
    for folder in (layout.dead_new, layout.dead_cur):
        for name in scan.entries(folder, system=system):
            if name.startswith(entry.key) and EntryName.parse(name).returns < entry.returns:
                with suppress(FileNotFoundError):  # another process was first
                    system.rename(f"{folder}/{name}", f"{layout.new}/{marker}")


def touch(layout: Layout, key: str, *, system: System) -> bool:
    """Change the time of an entry's marker, before a returned entry is claimed (see `presence`); False: it has none.

    Raises StorageFault's kinds; the entry must not be claimed then.
    """
    found: list[str] = []
    if (place := path_in_key(layout, key)) is not None:
        try:
            found = markers_of(place, key, system)
            for name in found:
                touch_marker(f"{place}/{name}", system)
        except FileNotFoundError:  # it has none any more
            return False
        except OSError as fault:
            raise_named(place, fault)
    return bool(found)


def _rename_surely(path: str, ended: str, place: str, system: System) -> None:
    """Rename an entry to its marker's folder, also if an NFS client has looked that up in vain before it was there."""
    try:
        system.rename(path, ended)
    except FileNotFoundError:
        system.utime(place.rpartition("/")[0])
        system.rename(path, ended)


def markers_of(place: str, key: str, system: System) -> list[str]:
    """List the names of an entry's markers freshly: one, or none. Raises OSError."""
    system.utime(place.rpartition("/")[0])  # an NFS client may have looked the place up in vain
    listed = doubt.fresh_listing(place, system)
    return [name for name in listed if not name.endswith((DRAFT, ENDED)) and key_in(name) == key]


def _free(place: str, key: str, returns: int | None, system: System) -> None:
    """Unlink an entry's marker by its exact name; it is the key's, unless the entry was requeued."""
    with suppress(FileNotFoundError):
        return system.unlink(f"{place}/{key}")
    for name in markers_of(place, key, system):
        if returns is None or EntryName.parse(name).returns <= returns:
            system.unlink(f"{place}/{name}")
