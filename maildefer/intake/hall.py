"""What all connections of the process share: the doors, the limits, and who is in."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.guard import Guard
from maildefer.intake.guests import Full, Guests
from maildefer.intake.line import Line
from maildefer.intake.options import Options
from maildefer.intake.policy import Policy
from maildefer.intake.recipients import Recipients

_REFUSALS = {
    Full.FOR_ANYBODY: replies.TOO_MANY_CONNECTIONS,
    Full.FOR_THIS_CLIENT: replies.TOO_MANY_OF_YOURS,
}


class Visitor(Protocol):
    """A connection, as the hall sees it."""

    client: Client

    @property
    def busy(self) -> bool: ...

    def dismiss(self) -> None: ...


class Hall:
    """Event loop only; no thread may call."""

    def __init__(
        self,
        options: Options,
        line: Line,
        recipients: Recipients,
        loop: asyncio.AbstractEventLoop,
        guard: Guard,
    ) -> None:
        self.options = options
        self.line = line
        self.recipients = recipients
        self.loop = loop
        self.guard = guard
        self.policy: Policy | None = None
        self.draining = False
        self.accepted = 0  # messages
        self._visitors: dict[Visitor, str] = {}  # and the address with which each has come
        self._guests = Guests(options, options.guestbook)
        self._held_bytes = 0
        self._empty = asyncio.Event()

    def enter(self, visitor: Visitor) -> str | None:
        """The reply for whom there is no room, or who comes when the doors are being closed."""
        if self.draining:
            return replies.TOO_MANY_CONNECTIONS
        address = visitor.client.address
        if (full := self._guests.enter(address)) is not None:
            return _REFUSALS[full]
        self._visitors[visitor] = address
        return None

    def exempts(self, client: Client) -> bool:
        """Whether it is one of our own."""
        return self._guests.exempts(client.address)

    def leave(self, visitor: Visitor) -> None:
        if (address := self._visitors.pop(visitor, None)) is not None:
            self._guests.leave(address)
        if self.draining and not self._visitors:
            self._empty.set()

    def facts(self) -> dict[str, object]:
        """For `maildefer status`."""
        return {
            "pid": os.getpid(),
            "queue": self.options.queue,
            **self._guests.facts(),
            "accepted": self.accepted,
            "held_bytes": self._held_bytes,
            "max_backlog": self.options.max_backlog,
            "min_free_bytes": self.options.min_free_bytes,
        }

    def hold(self, size_bytes: int) -> bool:
        """Account for bytes of a message that is not stored yet; False when all together would be too many."""
        if self._held_bytes + size_bytes > self.options.max_held_bytes:
            return False
        self._held_bytes += size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes

    async def drain(self, seconds: float) -> int:
        """Send away who is idle, let the others finish for so long, and send away who has not; returns how many."""
        self.draining = True
        for visitor in tuple(self._visitors):
            if not visitor.busy:
                visitor.dismiss()
        if self._visitors:
            try:
                await asyncio.wait_for(self._empty.wait(), seconds)
            except TimeoutError:
                pass
        left = tuple(self._visitors)
        for visitor in left:
            visitor.dismiss()
        return len(left)
