"""Settling doubtful replies by fresh listings.

A rename's reply can be lost: the server did it, the client retries, and the retry says ENOENT; EIO, ESTALE and EINTR
leave the same doubt. Never settled by `stat` of a name (a cached negative look-up answers for up to 30 s), never
through a kept descriptor, never by a destination that others share.
"""

from __future__ import annotations

import errno

from maildefer.errors import ClaimLost
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import owner_of, split_beat
from maildefer.maildir.system import System

DOUBTFUL = frozenset({errno.ENOENT, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT})

_NOT_OURS = frozenset({errno.EROFS, errno.EPERM, errno.EACCES})


def fresh_listing(path: str, system: System, *, touch: bool = True) -> list[str]:
    """The directory's names now. A change of one's own is what surely drops an NFSv3 client's stale listing.

    Raises OSError, also where that change fails: whoever takes a stale listing for the truth takes a live owner's
    claims. Only who may not change the directory at all, and so does not rename there either, just reads it.
    """
    if touch:
        try:
            system.utime(path)
        except OSError as fault:
            if fault.errno not in _NOT_OURS:
                raise
    return system.listdir(path)


def listed(path: str, name: str, system: System) -> bool:
    return name in fresh_listing(path, system)


def live_leases(layout: Layout, system: System) -> dict[str, int]:
    """Leases and their beats, by one fresh listing; one that is renamed meanwhile may be missing, or be there twice."""
    found: dict[str, int] = {}
    for name in fresh_listing(layout.leases, system):
        if beat := split_beat(name):
            found[beat[0]] = max(beat[1], found.get(beat[0], 0))
    return found


def lease_is_live(layout: Layout, lease: str, system: System) -> bool:
    """Whether our own lease is there; two looks, since a beat in between can hide it from one."""
    return lease in live_leases(layout, system) or lease in live_leases(layout, system)


def is_still_claimed(layout: Layout, claimed: str, system: System) -> bool:
    """Whether our own claim is there; else it is settled, as long as our lease is live. Raises ClaimLost, OSError."""
    if listed(layout.cur, claimed, system):
        return True
    owner = owner_of(claimed)
    assert owner is not None, claimed
    if lease_is_live(layout, owner.lease, system):
        return False
    raise ClaimLost(claimed)
