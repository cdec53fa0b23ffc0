"""Settling doubtful replies by fresh listings.

The reply to a rename can be lost: the server executes it, the client sends it again, and the second reply is ENOENT;
EIO, ESTALE and EINTR leave the same doubt. A doubt is never settled by `stat` of a name (a cached negative look-up
answers for up to 30 s), through a descriptor that was kept, or by a destination that others use too.
"""

from __future__ import annotations

import errno

from maildefer.errors import ClaimLost
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import owner_of, split_beat
from maildefer.maildir.system import System

DOUBTFUL = frozenset({errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT})
NOT_EMPTY = frozenset({errno.EEXIST, errno.ENOTEMPTY})  # what rename(2) says of the folder to be replaced

_NOT_OURS = frozenset({errno.EROFS, errno.EPERM, errno.EACCES})
_LOOKS = 50


def fresh_listing(path: str, system: System, *, touch: bool = True) -> list[str]:
    """List the directory as it is now: only a change by this client surely drops an NFSv3 client's stale listing.

    Raises OSError, also if that change fails: a process that believes a stale listing reclaims a live owner's claims.
    A process that may not change the directory at all, and so renames nothing there, only lists it.

    After a lost reply to the rename of a new folder, Linux' NFS client also knows that by its name in `tmp/`: each look
    fails with ESTALE while another process of that client moves something from folder to folder. So it is repeated.
    """
    for looks_left in reversed(range(_LOOKS)):
        try:
            if touch:
                set_time(path, system)
            return system.listdir(path)
        except OSError as fault:
            if fault.errno != errno.ESTALE or not looks_left:
                raise
    raise AssertionError("the last look returns or raises")


def set_time(path: str, system: System) -> None:
    """Set a directory's time to the mount's, if this process may change the directory. Raises OSError."""
    try:
        system.utime(path)
    except OSError as fault:
        if fault.errno not in _NOT_OURS:
            raise


def is_listed(path: str, name: str, system: System) -> bool:
    return name in fresh_listing(path, system)


def live_leases(layout: Layout, system: System) -> dict[str, int]:
    """List leases and their beats freshly; one that is renamed meanwhile may be missing, or be there twice."""
    found: dict[str, int] = {}
    for name in fresh_listing(layout.leases, system):
        if beat := split_beat(name):
            found[beat[0]] = max(beat[1], found.get(beat[0], 0))
    return found


def lease_is_live(layout: Layout, lease: str, system: System) -> bool:
    """Whether our own lease is there; lists twice, since a beat meanwhile can hide it from one listing."""
    return lease in live_leases(layout, system) or lease in live_leases(layout, system)


def is_still_claimed(layout: Layout, claimed: str, system: System) -> bool:
    """Whether our own claim is there; else it is settled, as long as our lease is live. Raises ClaimLost, OSError."""
    if is_listed(layout.cur, claimed, system):
        return True
    owner = owner_of(claimed)
    assert owner is not None, claimed
    if lease_is_live(layout, owner.lease, system):
        return False
    raise ClaimLost(claimed)
