"""Networks as settings name them, and whether an address is in one."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import NamedTuple

from maildefer.errors import ConfigurationError

UNIX = "unix"


class Networks:
    """Networks in text such as `127.0.0.0/8 ::1 unix`, with spaces or commas between; `unix`: clients on a socket file.

    Without the standard library's `ipaddress`: half a megabyte for a comparison. Raises ConfigurationError.
    """

    def __init__(self, text: str) -> None:
        words = text.replace(",", " ").split()
        self._unix = UNIX in words
        self._blocks = [_block(word) for word in words if word != UNIX]
        self.has = lru_cache(maxsize=256)(self._has)

    def __bool__(self) -> bool:
        return self._unix or bool(self._blocks)

    def _has(self, address: str) -> bool:
        """Whether the address, in the form of `Client.address`, is in a network; empty on a socket file."""
        if not address:
            return self._unix
        if (packed := _packed(address)) is None:
            return False
        return any(block.holds(packed) for block in self._blocks)


def is_address(text: str) -> bool:
    return _packed(text) is not None


class _Network(NamedTuple):
    first: bytes
    bits: int

    def holds(self, packed: bytes) -> bool:
        return len(packed) == len(self.first) and _cut(packed, self.bits) == _cut(self.first, self.bits)


def _block(word: str) -> _Network:
    address, slash, bits = word.partition("/")
    packed = _packed(address.strip("[]"))
    most = 8 * len(packed or b"")
    if packed is None or (slash and not (bits.isascii() and bits.isdigit() and int(bits) <= most)):
        raise ConfigurationError(f"{word!r} is no network: give an address, ADDRESS/BITS, or {UNIX}")
    return _Network(packed, int(bits) if slash else most)


def _packed(address: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except OSError:
        return None


def _cut(packed: bytes, bits: int) -> int:
    return int.from_bytes(packed) >> (8 * len(packed) - bits)
