"""Sets a popped entry aside that is larger than its program takes: among the dead letters, or in another queue."""

from __future__ import annotations

from maildefer.maildir.pop import Popped
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import write_reason


def set_aside(popped: Popped, reason: str, other: Pusher | None, *, queue: str) -> None:
    """Move the entry, with its reason, to the other queue, or without one to the dead letters. Raises OSError."""
    if other is None:
        popped.bury(reason)
        return
    try:
        write_reason(other.layout, popped.returned, reason, {"queue": queue}, host=other.host)
        popped.move_to(other.layout.new)
    except OSError:  # another filesystem: copied, then unlinked
        if (data := popped.read()) is not None:
            other.push(lambda stem: (data,))
            popped.unlink()
