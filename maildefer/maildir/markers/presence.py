"""Whether an entry that has not ended is in the queue: needed only for a marker whose entry has left no trace.

Every settle, promotion and return moves an entry onwards on the way `cur/`, `.later/`, `new/`; only a claim, a pop and
a reschedule lead back. So one round of listings in this order finds an entry, whatever moves it meanwhile, unless it is
moved back during the round; and two rounds find it, unless it is moved back in both. Whoever moves an entry back that
has returned before, as in the second round, changes the time of its marker first (see `ends.touch`). So an entry that
two rounds have not shown, while its marker kept its time, is not in the queue.
"""

from __future__ import annotations

import os
from typing import Final

from maildefer.maildir import scan
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import System

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ROUNDS: Final = 2


def is_gone(layout: Layout, key: str, first: str, marker: str, *, system: System) -> bool:
    """Whether the entry of that key is in no folder of the queue but the dead letters'. Raises OSError.

    `first` is the path at which it was put, which is looked at before anything is listed; `marker` the marker's path.
    """
    system.utime(first.rpartition("/")[0])
    try:
        system.lstat(first)
    except FileNotFoundError:
        pass
    else:
        return False
    before = time_of(marker, system)
    for _ in range(_ROUNDS):
        for folder in (layout.cur, layout.later_cur, layout.later_new, layout.new):
            try:
                if scan.has_entry(folder, key, system=system):
                    return False
            except FileNotFoundError:  # it holds nothing, and is made again when it is needed
                continue
    return time_of(marker, system) == before


def touch_marker(path: str, system: System) -> None:
    """Set a file's mtime to the mount's present time."""
    descriptor = system.open(path, _READ)
    try:
        system.utime(descriptor)
    finally:
        system.close(descriptor)


def time_of(path: str, system: System) -> float:
    """Return a file's mtime as the server has it: an NFS client asks for it when the file is opened."""
    descriptor = system.open(path, _READ)
    try:
        return system.fstat(descriptor).st_mtime
    finally:
        system.close(descriptor)
