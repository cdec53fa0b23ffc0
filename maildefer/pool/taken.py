"""Log lines about what a keeper took back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from maildefer import events
from maildefer.maildir.recover import Taken


@contextmanager
def told(queue: str) -> Iterator[Taken]:
    """What is put in here is logged, also when its scan ends in a fault."""
    taken = Taken()
    try:
        yield taken
    finally:
        _tell(queue, taken)


def _tell(queue: str, taken: Taken) -> None:
    for key in taken.reclaimed:
        events.emit("claim.reclaimed", queue=queue, key=key)
    for key in taken.released:
        events.emit("claim.released", queue=queue, key=key)
    for key, reason in taken.buried.items():
        events.emit("entry.buried", queue=queue, key=key, reason=reason)
    for key in taken.returned:
        events.emit("entry.returned", queue=queue, key=key)
