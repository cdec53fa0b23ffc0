"""Whether an entry that has not ended is in the queue: needed only for a marker whose entry has left no trace.

Every claim, settle, promotion and return moves an entry one step on the way `cur/`, `.later/`, `new/`, or back from
`new/` to `cur/`, and only a claim leads back. So one round of listings in this order finds an entry, whatever moves it
meanwhile, unless it is claimed during the round; and two rounds find it, unless it is claimed in both. The claim in the
second round is one of a returned entry, and whoever claims such an entry changes the time of its marker before (see
`ends.touch`). So an entry that two rounds have not shown, while its marker kept its time, is not in the queue.
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
                system.utime(folder)  # as before every listing that must be fresh: see `doubt`
            except FileNotFoundError:  # it holds nothing, and is made again when it is needed
                continue
            if any(name.startswith(key) for name in scan.entries(folder, system=system)):
                return False
    return time_of(marker, system) == before


def time_of(path: str, system: System) -> float:
    """Return a file's mtime as the server has it: an NFS client asks for it when the file is opened."""
    descriptor = system.open(path, _READ)
    try:
        return system.fstat(descriptor).st_mtime
    finally:
        system.close(descriptor)
