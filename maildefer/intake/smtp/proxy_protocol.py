"""The PROXY protocol, versions 1 and 2: a proxy first sends the address of the client that it has connected.

The header is read from the socket up to its last byte and no further, so that the event loop reads what follows, TLS or
SMTP. By HAProxy's `proxy-protocol.txt`, a proxy that is configured must send a header, and no other client's is read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from maildefer.intake.client import Client, plain_address

_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_LINE_BYTES: Final = 107
_MOST_BYTES: Final = 2048  # of a version 2 header; with the largest certificate name in it some 500
_FAMILIES: Final = {1: (socket.AF_INET, 4), 2: (socket.AF_INET6, 16)}


class BadHeader(Exception):
    """The connection did not begin with a PROXY header."""


async def read(sock: socket.socket, seconds: float) -> Client | None:
    """Read a header: the client, or None for the proxy's own connection. Raises BadHeader, TimeoutError, OSError."""
    async with asyncio.timeout(seconds):
        start = await _exactly(sock, len(_SIGNATURE))
        if start == _SIGNATURE:
            fixed = await _exactly(sock, 4)
            size = int.from_bytes(fixed[2:])
            if size > _MOST_BYTES:
                raise BadHeader(f"a header of {size} bytes")
            return parse_version_2(fixed, await _exactly(sock, size))
        while not start.endswith(b"\r\n"):
            if len(start) >= _LINE_BYTES:
                raise BadHeader("a line without an end")
            start += await _up_to_newline(sock, _LINE_BYTES - len(start))
        return parse_version_1(start)


def parse_version_1(line: bytes) -> Client | None:
    """Parse a header of version 1, a line with its end."""
    words = line[:-2].decode("latin-1").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return None
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in ("TCP4", "TCP6"):
        raise BadHeader(line[:_LINE_BYTES].decode("latin-1"))
    try:
        for address in words[2:4]:
            socket.inet_pton(socket.AF_INET if words[1] == "TCP4" else socket.AF_INET6, address)
        port, _ = map(_port, words[4:])
    except (OSError, ValueError):
        raise BadHeader(line[:_LINE_BYTES].decode("latin-1")) from None
    return Client(address=plain_address(words[2]), port=port)


def parse_version_2(fixed: bytes, rest: bytes) -> Client | None:
    """Parse a header of version 2: the four bytes after the signature, and the bytes that they announce."""
    version, command = fixed[0] >> 4, fixed[0] & 15
    if version != 2 or command > 1:
        raise BadHeader(f"version {version}, command {command}")
    family, _ = fixed[1] >> 4, fixed[1] & 15
    if command == 0:  # LOCAL: a health check
        return None
    if family not in _FAMILIES:  # of a socket file, or unspecified
        return None
    kind, size = _FAMILIES[family]
    if len(rest) < 2 * size + 4:
        raise BadHeader(f"{len(rest)} bytes of addresses")
    (port,) = struct.unpack_from("!H", rest, 2 * size)
    return Client(address=plain_address(socket.inet_ntop(kind, rest[:size])), port=port)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise ValueError(text)
    return int(text)


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        data += (piece := await loop.sock_recv(sock, size - len(data)))
        if not piece:
            raise BadHeader("the connection ended")
    return data


async def _up_to_newline(sock: socket.socket, most: int) -> bytes:
    try:
        ahead = sock.recv(most, socket.MSG_PEEK)
    except BlockingIOError:  # nothing is there yet
        ahead = b""
    return await _exactly(sock, ahead.find(b"\n") + 1 or len(ahead) or 1)
