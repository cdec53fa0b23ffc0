"""State that all SMTP connections of a process share: options, limits, recipients, writer, policy."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from maildefer.intake import replies
from maildefer.intake.access.connection_limits import (
    ConnectionLimits,
    LimitReached,
    OpenConnection,
    OpenConnections,
)
from maildefer.intake.access.policy_client import PolicyClient
from maildefer.intake.access.recipients import RecipientTable
from maildefer.intake.access.security import AccessSecurity
from maildefer.intake.client import Client
from maildefer.intake.options import IntakeOptions
from maildefer.intake.refusals import RefusalCounts
from maildefer.intake.replies import Reply
from maildefer.intake.writer.client import WriterClient

_REFUSALS = {
    LimitReached.FOR_ANYBODY: replies.TOO_MANY_CONNECTIONS,
    LimitReached.FOR_THIS_CLIENT: replies.TOO_MANY_OF_YOURS,
}


class SessionConnection(OpenConnection, Protocol):
    """A connection, as `ServerContext` uses it."""

    client: Client


class ServerContext:
    """The state of a process. Event loop only; no thread may call."""

    def __init__(
        self,
        options: IntakeOptions,
        writer: WriterClient,
        recipients: RecipientTable,
        loop: asyncio.AbstractEventLoop,
        security: AccessSecurity,
    ) -> None:
        self.options = options
        self.writer = writer
        self.recipients = recipients
        self.loop = loop
        self.security = security
        self.policy: PolicyClient | None = None
        self.connections = OpenConnections(ConnectionLimits(options, options.connection_row))
        self.accepted = 0  # messages
        self.refusals = RefusalCounts()
        self._held_bytes = 0

    def enter(self, connection: SessionConnection) -> Reply | None:
        """Let a connection in; else the reply for it, where there is no room or the process is draining."""
        if self.connections.draining:
            return replies.TOO_MANY_CONNECTIONS
        reached = self.connections.enter(connection, connection.client.address)
        return None if reached is None else _REFUSALS[reached]

    def exempts(self, client: Client) -> bool:
        """Whether its address is in an exempt network."""
        return self.connections.limits.exempts(client.address)

    def facts(self) -> dict[str, object]:
        """Facts of this process for `maildefer status`."""
        return {
            "pid": os.getpid(),
            "queue": self.options.queue,
            **self.connections.limits.facts(),
            "accepted": self.accepted,
            "refused": self.refusals.counts,
            "held_bytes": self._held_bytes,
            "max_backlog": self.options.max_backlog,
            "min_free_bytes": self.options.min_free_bytes,
        }

    def hold_bytes(self, size_bytes: int) -> bool:
        """Account for bytes of a message that is not stored yet; False when all together would be too many."""
        if self._held_bytes + size_bytes > self.options.max_held_bytes:
            return False
        self._held_bytes += size_bytes
        return True

    def release_bytes(self, size_bytes: int) -> None:
        """Account for them no more: they are stored, or dropped."""
        self._held_bytes -= size_bytes
