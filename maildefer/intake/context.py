"""What all connections of the process share: the doors, the limits, and who is in."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from maildefer.intake import replies
from maildefer.intake.access.connection_limits import ConnectionLimits, LimitReached
from maildefer.intake.access.open_connections import OpenConnection, OpenConnections
from maildefer.intake.access.policy_client import PolicyClient
from maildefer.intake.access.recipients import RecipientTable
from maildefer.intake.access.security import AccessSecurity
from maildefer.intake.client import Client
from maildefer.intake.options import IntakeOptions
from maildefer.intake.writer.client import WriterClient

_REFUSALS = {
    LimitReached.FOR_ANYBODY: replies.TOO_MANY_CONNECTIONS,
    LimitReached.FOR_THIS_CLIENT: replies.TOO_MANY_OF_YOURS,
}


class SessionConnection(OpenConnection, Protocol):
    """A connection, as the hall sees it."""

    client: Client


class ServerContext:
    """Event loop only; no thread may call."""

    def __init__(
        self,
        options: IntakeOptions,
        line: WriterClient,
        recipients: RecipientTable,
        loop: asyncio.AbstractEventLoop,
        guard: AccessSecurity,
    ) -> None:
        self.options = options
        self.line = line
        self.recipients = recipients
        self.loop = loop
        self.guard = guard
        self.policy: PolicyClient | None = None
        self.visitors = OpenConnections(ConnectionLimits(options, options.guestbook))
        self.accepted = 0  # messages
        self._held_bytes = 0

    def enter(self, caller: SessionConnection) -> str | None:
        """The reply for whom there is no room, or who comes when the doors are being closed."""
        if self.visitors.draining:
            return replies.TOO_MANY_CONNECTIONS
        full = self.visitors.enter(caller, caller.client.address)
        return None if full is None else _REFUSALS[full]

    def exempts(self, client: Client) -> bool:
        """Whether it is one of our own."""
        return self.visitors.guests.exempts(client.address)

    def facts(self) -> dict[str, object]:
        """For `maildefer status`."""
        return {
            "pid": os.getpid(),
            "queue": self.options.queue,
            **self.visitors.guests.facts(),
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
