"""Log lines about what a keeper took back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from maildefer import events
from maildefer.maildir.upkeep.reclaim import Reclaimed


@contextmanager
def logged_reclaims(queue: str) -> Iterator[Reclaimed]:
    """What is put in here is logged, also when its scan ends in a fault."""
    taken = Reclaimed()
    try:
        yield taken
    finally:
        _tell(queue, taken)


def _tell(queue: str, taken: Reclaimed) -> None:
    for key in taken.reclaimed:
        events.emit("claim.reclaimed", queue=queue, key=key)
    for key in taken.released:
        events.emit("claim.released", queue=queue, key=key)
    for key, reason in taken.buried.items():
        events.emit("entry.buried", queue=queue, key=key, reason=reason)
    for key in taken.returned:
        events.emit("entry.returned", queue=queue, key=key)
