"""Who is in, and for whom there is room: connections in all, and of each client."""

from __future__ import annotations

import socket
from enum import Enum
from typing import Final

from maildefer.intake.access.networks import Networks
from maildefer.intake.connection_table import ALONE, ConnectionTable, TableRow
from maildefer.intake.limits import Limits

_ONE_CLIENT_BYTES: Final = 8  # of an IPv6 address: a customer has a /64 at least
# What no network of IPv6 that anybody has begins with (RFC 4291, section 2.4: 0000::/8 is reserved).
_IPV4: Final = 1 << 32
_ZERO: Final = 2 << 32
_NO_ADDRESS: Final = 3 << 32


class LimitReached(Enum):
    """Why there is no room."""

    FOR_ANYBODY = 1
    FOR_THIS_CLIENT = 2


class ConnectionLimits:
    """Of one process of a front end; the limits hold for all its processes together. Event loop only.

    Clients of exempt networks count in all, and not for themselves.
    """

    def __init__(self, limits: Limits, at: TableRow = ALONE) -> None:
        """`at`: this process's place in the book of all. Raises ConfigurationError for a network that is none."""
        self._most = limits.max_connections
        self._most_of_one = limits.max_connections_per_client
        self._exempt = Networks(limits.exempt_networks)
        self._book = ConnectionTable(at, self._most + 1)  # one is noted before it is refused
        self._lines: dict[int, list[int]] = {}  # of each client

    def exempts(self, address: str) -> bool:
        """Whether it is one of our own; `address` as `Client.address` has it."""
        return self._exempt.has(address)

    def enter(self, address: str) -> LimitReached | None:
        """None where it is in now: `leave` has to follow, with the same address."""
        self._book.come()
        if self._book.connections_of_all > self._most:
            self._book.go()
            return LimitReached.FOR_ANYBODY
        if not self._counts_for_itself(address):
            return None
        client = one_client(address)
        line = self._book.note(client)
        if self._most_of_one and self._book.count(client) > self._most_of_one:
            self._book.strike(line)
            self._book.go()
            return LimitReached.FOR_THIS_CLIENT
        self._lines.setdefault(client, []).append(line)
        return None

    def leave(self, address: str) -> None:
        if self._counts_for_itself(address):
            client = one_client(address)
            lines = self._lines[client]
            self._book.strike(lines.pop())
            if not lines:
                del self._lines[client]
        self._book.go()

    def facts(self) -> dict[str, object]:
        """For `maildefer status`; but for the second this process's own."""
        return {
            "connections": self._book.connections,
            "connections_of_all": self._book.connections_of_all,
            "max_connections": self._most,
            "clients": len(self._lines),
        }

    def _counts_for_itself(self, address: str) -> bool:
        """Who comes by a socket file has no address."""
        return bool(address) and not self.exempts(address)


def one_client(address: str) -> int:
    """What tells a client from others, never 0: its IPv4 address, the network of its IPv6 address."""
    try:
        if ":" not in address:
            return _IPV4 | int.from_bytes(socket.inet_pton(socket.AF_INET, address))
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, address)[:_ONE_CLIENT_BYTES]) or _ZERO
    except OSError:
        return _NO_ADDRESS
