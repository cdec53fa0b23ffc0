"""Opening a queue to read it: nothing is made or mended, and no link is followed."""

from __future__ import annotations

import os
import stat
from typing import Final

from maildefer.errors import NotAQueue, PermissionRefused, ReadRefused
from maildefer.maildir.layout import Layout, list_queue_folder, must_be_maildir, read_format
from maildefer.maildir.scan import raise_unread
from maildefer.maildir.system import SYSTEM, System

_FOLDERS: Final = (  # of a Layout
    "tmp",
    "new",
    "cur",
    "later_new",
    "later_cur",
    "dead_new",
    "dead_cur",
    "done_new",
    "done_cur",
    "leases",
    "reasons",
    "status",
    "journal",
    "synced",
)


def look_into_queue(path: str, *, system: System = SYSTEM) -> Layout:
    """Open an existing queue for reading only: nothing is made or mended. Raises what `open_queue` raises.

    NotAQueue, too, if one of its folders is a link, which may lead anywhere.
    """
    layout = Layout(path)
    try:
        present = list_queue_folder(layout, system)
    except PermissionRefused as fault:
        raise ReadRefused(layout.path, OSError(fault.errno, os.strerror(fault.errno or 0))) from fault
    for name in _FOLDERS:
        _must_be_no_link(layout, getattr(layout, name), system)
    if ".maildefer" in present:
        read_format(layout, system=system)
    else:
        must_be_maildir(layout, present, system)
    return layout


def _must_be_no_link(layout: Layout, folder: str, system: System) -> None:
    """Raise NotAQueue if the folder, or the one that holds it, is a link; a missing folder is none."""
    for path in (os.path.dirname(folder), folder):
        try:
            if path != layout.path and not stat.S_ISDIR(system.lstat(path).st_mode):
                raise NotAQueue(
                    layout.path, f"its {os.path.relpath(path, layout.path)} is no directory of its own"
                )
        except FileNotFoundError:
            return
        except OSError as fault:
            raise_unread(path, fault)
