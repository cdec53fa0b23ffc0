"""Who is in, and for whom there is room: connections in all, and of each client."""

from __future__ import annotations

import socket
from collections import Counter
from enum import Enum
from typing import Final

from maildefer.intake.limits import Limits
from maildefer.intake.networks import Networks

_ONE_CLIENT_BYTES: Final = 8  # of an IPv6 address: a customer has a /64 at least


class Full(Enum):
    """Why there is no room."""

    FOR_ANYBODY = 1
    FOR_THIS_CLIENT = 2


class Guests:
    """Of one front end. Clients of exempt networks count in all, and not for themselves. Event loop only."""

    def __init__(self, limits: Limits) -> None:
        """Raises ConfigurationError for a network that is none."""
        self._most = limits.max_connections
        self._most_of_one = limits.max_connections_per_client
        self._exempt = Networks(limits.exempt_networks)
        self._counts: Counter[str] = Counter()
        self._connections = 0

    def __len__(self) -> int:
        """Connections."""
        return self._connections

    @property
    def clients(self) -> int:
        """Those that count for themselves."""
        return len(self._counts)

    def exempts(self, address: str) -> bool:
        """Whether it is one of our own; `address` as `Client.address` has it."""
        return self._exempt.has(address)

    def enter(self, address: str) -> Full | None:
        """None where it is in now: `leave` has to follow, with the same address."""
        if self._connections >= self._most:
            return Full.FOR_ANYBODY
        if self._counts_for_itself(address):
            client = one_client(address)
            if 0 < self._most_of_one <= self._counts[client]:
                return Full.FOR_THIS_CLIENT
            self._counts[client] += 1
        self._connections += 1
        return None

    def leave(self, address: str) -> None:
        self._connections -= 1
        if self._counts_for_itself(address):
            client = one_client(address)
            self._counts[client] -= 1
            if self._counts[client] <= 0:
                del self._counts[client]

    def _counts_for_itself(self, address: str) -> bool:
        """Who comes by a socket file has no address."""
        return bool(address) and not self.exempts(address)


def one_client(address: str) -> str:
    """What tells a client from others: its IPv4 address, the network of its IPv6 address."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return address
    return socket.inet_ntop(socket.AF_INET6, packed[:_ONE_CLIENT_BYTES] + bytes(16 - _ONE_CLIENT_BYTES))
