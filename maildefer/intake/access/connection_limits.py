"""Which connections are let in: limits in all and for each client, and those that are open."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from enum import Enum
from typing import Final, Protocol

from maildefer.intake.access.networks import Networks
from maildefer.intake.connection_table import ALONE, ConnectionTable, TableRow
from maildefer.intake.options import FrontEndOptions

_ONE_CLIENT_BYTES: Final = 8  # of an IPv6 address: a customer has a /64 at least
# Numbers with which no IPv6 network in use begins (RFC 4291, section 2.4: 0000::/8 is reserved).
_IPV4: Final = 1 << 32
_ZERO: Final = 2 << 32
_NO_ADDRESS: Final = 3 << 32


class LimitReached(Enum):
    """Why a connection is not let in."""

    FOR_ANYBODY = 1
    FOR_THIS_CLIENT = 2


class ConnectionLimits:
    """Limits of one process of a front end; they hold for all its processes together. Event loop only.

    Connections from exempt networks count in all, and not for their clients.
    """

    def __init__(self, options: FrontEndOptions, row: TableRow = ALONE) -> None:
        """`row`: the row of this process in the table of all. Raises ConfigurationError for an invalid network."""
        self._most = options.max_connections
        self._most_of_one = options.max_connections_per_client
        self._exempt = Networks(options.exempt_networks)
        self._table = ConnectionTable(row, self._most + 1)  # one is entered before it is refused
        self._cells: dict[int, list[int]] = {}  # in the table, of each client

    def exempts(self, address: str) -> bool:
        """Whether the address is in an exempt network; `address` as `Client.address` has it."""
        return self._exempt.has(address)

    def enter(self, address: str) -> LimitReached | None:
        """Count a connection; None where it is let in: `leave` has to follow, with the same address."""
        self._table.add_connection()
        if self._table.connections_of_all > self._most:
            self._table.remove_connection()
            return LimitReached.FOR_ANYBODY
        if not self._counts_for_client(address):
            return None
        client = one_client(address)
        cell = self._table.enter_client(client)
        if self._most_of_one and self._table.count(client) > self._most_of_one:
            self._table.erase_client(cell)
            self._table.remove_connection()
            return LimitReached.FOR_THIS_CLIENT
        self._cells.setdefault(client, []).append(cell)
        return None

    def leave(self, address: str) -> None:
        """Count a connection no more."""
        if self._counts_for_client(address):
            client = one_client(address)
            cells = self._cells[client]
            self._table.erase_client(cells.pop())
            if not cells:
                del self._cells[client]
        self._table.remove_connection()

    def facts(self) -> dict[str, object]:
        """Facts for `maildefer status`: of this process, but for `connections_of_all`."""
        return {
            "connections": self._table.connections,
            "connections_of_all": self._table.connections_of_all,
            "max_connections": self._most,
            "clients": len(self._cells),
        }

    def _counts_for_client(self, address: str) -> bool:
        """Whether it counts for its client: one by a socket file has no address."""
        return bool(address) and not self.exempts(address)


class OpenConnection(Protocol):
    """A connection, as `OpenConnections` uses it."""

    @property
    def busy(self) -> bool:
        """Whether a message or request is under way."""

    def dismiss(self) -> None:
        """Close it, with a reply that says so."""


class OpenConnections:
    """The connections of one process that were let in. Event loop only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.draining = False
        # With which each was let in: a later one may be a proxy's word.
        self._addresses: dict[OpenConnection, str] = {}
        self._empty = asyncio.Event()

    def enter(self, connection: OpenConnection, address: str) -> LimitReached | None:
        """Let a connection in; None where there is room for it."""
        if (reached := self.limits.enter(address)) is None:
            self._addresses[connection] = address
        return reached

    def leave(self, connection: OpenConnection) -> None:
        """Note that a connection has ended; nothing to do for one that was not let in."""
        if (address := self._addresses.pop(connection, None)) is not None:
            self.limits.leave(address)
        if self.draining and not self._addresses:
            self._empty.set()

    async def drain(self, seconds: float) -> int:
        """Dismiss idle connections, wait so long for the others, and dismiss what is left; returns how many."""
        self.draining = True
        for connection in tuple(self._addresses):
            if not connection.busy:
                connection.dismiss()
        if self._addresses:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._empty.wait()
        left = tuple(self._addresses)
        for connection in left:
            connection.dismiss()
        return len(left)


def one_client(address: str) -> int:
    """The number of a client, never 0: of its IPv4 address, or of the network of its IPv6 address."""
    try:
        if ":" not in address:
            return _IPV4 | int.from_bytes(socket.inet_pton(socket.AF_INET, address))
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, address)[:_ONE_CLIENT_BYTES]) or _ZERO
    except OSError:
        return _NO_ADDRESS
