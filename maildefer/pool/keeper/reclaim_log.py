"""Log lines about what a keeper has reclaimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from maildefer import events
from maildefer.maildir.upkeep.reclaim import Reclaimed


@contextmanager
def logged_reclaims(queue: str) -> Iterator[Reclaimed]:
    """Log what the scan adds to the record, also when it ends in a fault."""
    reclaimed = Reclaimed()
    try:
        yield reclaimed
    finally:
        _log(queue, reclaimed)


def log_reclaimed_tokens(queue: str, count: int, overlaps: Sequence[str] = ()) -> None:
    """Log how many tokens were reclaimed; `overlaps` are owners, on another host or fenced, of slots of limits."""
    if count:
        events.emit("token.freed", queue=queue, count=count)
    for owner in overlaps:
        lease, _, pid = owner.rpartition(".")
        events.emit("limit.overlapped", queue=queue, lease=lease, pid=int(pid))


def _log(queue: str, reclaimed: Reclaimed) -> None:
    for key in reclaimed.reclaimed:
        events.emit("claim.reclaimed", queue=queue, key=key)
    for key in reclaimed.released:
        events.emit("claim.released", queue=queue, key=key)
    for key, reason in reclaimed.buried.items():
        events.emit("entry.buried", queue=queue, key=key, reason=reason)
    for key in reclaimed.returned:
        events.emit("entry.returned", queue=queue, key=key)
