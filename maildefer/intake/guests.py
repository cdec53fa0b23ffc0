"""How many connections each client has."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Final

_ONE_CLIENT_BYTES: Final = 8  # of an IPv6 address: a customer has a /64 at least


class Guests:
    """Counts up to a limit; with 0 there is none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """False where the client has as many as it may."""
        client = one_client(address)
        if 0 < self._most <= self._counts[client]:
            return False
        self._counts[client] += 1
        return True

    def leave(self, address: str) -> None:
        client = one_client(address)
        self._counts[client] -= 1
        if self._counts[client] <= 0:
            del self._counts[client]

    def __len__(self) -> int:
        """How many clients there are."""
        return len(self._counts)


def one_client(address: str) -> str:
    """What tells a client from others: its IPv4 address, the network of its IPv6 address."""
    if ":" not in address:
        return address
    try:
        packed = socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return address
    return socket.inet_ntop(socket.AF_INET6, packed[:_ONE_CLIENT_BYTES] + bytes(16 - _ONE_CLIENT_BYTES))
