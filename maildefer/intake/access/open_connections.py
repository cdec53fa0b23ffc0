"""The connections that were let in, until the doors are closed."""

from __future__ import annotations

import asyncio
from typing import Protocol

from maildefer.intake.access.connection_limits import ConnectionLimits, LimitReached


class OpenConnection(Protocol):
    """A connection, as whoever closes the doors sees it."""

    @property
    def busy(self) -> bool: ...

    def dismiss(self) -> None: ...


class OpenConnections:
    """Of one process. Event loop only."""

    def __init__(self, guests: ConnectionLimits) -> None:
        self.guests = guests
        self.draining = False
        self._present: dict[OpenConnection, str] = {}  # and the address with which each has come
        self._empty = asyncio.Event()

    def enter(self, visitor: OpenConnection, address: str) -> LimitReached | None:
        """None where it is in now."""
        if (full := self.guests.enter(address)) is None:
            self._present[visitor] = address
        return full

    def leave(self, visitor: OpenConnection) -> None:
        """Nothing to do for who was not let in."""
        if (address := self._present.pop(visitor, None)) is not None:
            self.guests.leave(address)
        if self.draining and not self._present:
            self._empty.set()

    async def drain(self, seconds: float) -> int:
        """Send away who is idle, let the others finish for so long, and send away who has not; returns how many."""
        self.draining = True
        for visitor in tuple(self._present):
            if not visitor.busy:
                visitor.dismiss()
        if self._present:
            try:
                await asyncio.wait_for(self._empty.wait(), seconds)
            except TimeoutError:
                pass
        left = tuple(self._present)
        for visitor in left:
            visitor.dismiss()
        return len(left)
