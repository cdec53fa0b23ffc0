"""A dead letter of a unique key that a mail reader has moved to `new/`: it has no marker, as a requeue makes one.

So whoever has claimed it makes the marker before its handlers run, or buries it again. Not before the claim: what a
listing has shown may have ended long ago (I10), and a marker for that would hold off pushes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, TypeVar

from maildefer.errors import StorageFault, UniqueKeyHeld
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import path_in_key
from maildefer.maildir.names import EntryName
from maildefer.maildir.system import System


class HeldClaim(Protocol):
    """A `Claim`."""

    @property
    def entry(self) -> EntryName: ...
    def bury(self, reason: str, *, begun: bool = True) -> str: ...
    def abandon(self) -> None: ...


C = TypeVar("C", bound=HeldClaim)


def hold(claim: C, layout: Layout, *, host: str, system: System) -> C | None:
    """Have a claimed entry, which had no marker, hold its unique key; None if another does, and it was buried.

    An entry that was handed on has no marker in this queue. Raises ClaimLost; StorageFault's kinds, with the claim
    abandoned, so that the audit gives the entry back.
    """
    entry = claim.entry
    if entry.handoffs or entry.outputs or path_in_key(layout, entry.key) is None:
        return claim
    marker = replace(entry, failures=0, attempts=0, crashes=0).waiting()
    try:
        Markers(layout, host=host, system=system).retake(marker)
    except UniqueKeyHeld as fault:
        _bury(claim, str(fault))
        return None
    except StorageFault:
        claim.abandon()
        raise
    return claim


def _bury(claim: HeldClaim, reason: str) -> None:
    try:
        claim.bury(reason, begun=False)
    except StorageFault:
        claim.abandon()
        raise
