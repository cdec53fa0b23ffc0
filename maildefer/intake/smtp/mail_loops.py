"""Finds mail loops by the trace lines of a message.

Each server adds a Received line (RFC 5321, section 6.3: some hundred of them are a loop; Postfix takes 50 for one), and
one that delivers to an address and may forward adds a Delivered-To line with it: a message that names its recipient
there was delivered to it before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from maildefer.intake.options import FrontEndOptions
from maildefer.message.envelope import HEADER_LIMIT_BYTES, encode_address, own_block

# In lower case; white space before the colon is obsolete syntax (RFC 5322, section 4.5); a value may be folded.
_RECEIVED: Final = re.compile(rb"\nreceived[ \t]*:").findall
_DELIVERED: Final = re.compile(rb"\ndelivered-to[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?=\n)").findall
_PIECE: Final = re.compile(rb'\\.|["()\s]|[^\\"()\s]+|\\', re.DOTALL).findall
_FIELD_BYTES: Final = 2000  # kept of a field that has not ended: enough for its name and an address


class Trace:
    """Reads the header section of one message, which may come in parts; it keeps one field at most."""

    def __init__(self, limits: FrontEndOptions) -> None:
        self._max_hops = limits.max_hops
        self._max_deliveries = limits.max_deliveries
        self._hops = 0
        self._delivered: list[bytes] = []
        self._rest: bytes | None = None  # of a field; None: nothing has come
        self._size_bytes = 0
        self._ended = False

    def feed(self, *pieces: bytes) -> None:
        """Read the next part, in pieces, with LF as line ends. An envelope block that begins the message is skipped."""
        if self._ended:  # the header section, or as much of it as is read
            return
        data = b"".join(pieces)
        if self._rest is None:
            block = own_block(data)
            data, self._rest = data if block is None else data[block[-1] :], b""
        self._size_bytes += len(data)
        lines = b"\n" + self._rest + data
        end = lines.find(b"\n\n")
        sooner = lines.find(b"\n\r\n", 0, end + 1 if end >= 0 else len(lines))
        end = sooner if sooner >= 0 else end
        self._ended = end >= 0 or self._size_bytes > HEADER_LIMIT_BYTES
        if end < 0:
            end = _last_field(lines)
        self._rest = b"" if self._ended else _shortened(lines[end + 1 :])
        hops, delivered = _read(lines[: end + 1])
        self._hops += hops
        self._delivered += delivered

    def loops(self, recipients: Sequence[str]) -> dict[str, str]:
        """The recipients for whom it is a loop by what has been read, each with the reason for the log."""
        hops, delivered = self._hops, self._delivered
        if self._rest:  # more of it may come, so only complete lines count
            more_hops, more_delivered = _read(b"\n" + self._rest[: self._rest.rfind(b"\n") + 1])
            hops, delivered = hops + more_hops, delivered + more_delivered
        if hops >= self._max_hops:
            return dict.fromkeys(recipients, f"{hops} Received lines")
        if not self._max_deliveries or not delivered:
            return {}
        return {
            recipient: "delivered to it before"
            for recipient in recipients
            if delivered.count(encode_address(recipient).lower()) >= self._max_deliveries
        }


def _read(lines: bytes) -> tuple[int, list[bytes]]:
    """The number of Received lines, and the addresses of Delivered-To lines."""
    lines = lines.lower()
    delivered = map(_address, _DELIVERED(lines)) if b"\ndelivered-to" in lines else ()
    return len(_RECEIVED(lines)), list(delivered)


def _last_field(lines: bytes) -> int:
    """Where the line before the last field ends; more lines of that field may follow."""
    end = lines.rfind(b"\n")
    while end > 0 and (end + 1 == len(lines) or lines[end + 1 : end + 2] in (b" ", b"\t")):
        end = lines.rfind(b"\n", 0, end)
    return end


def _shortened(field: bytes) -> bytes:
    """Cut a field that is too long, as one line, so that its next lines are not taken for a new field."""
    if len(field) <= _FIELD_BYTES:
        return field
    return field[:_FIELD_BYTES].replace(b"\n", b" ") + (b"\n" if field.endswith(b"\n") else b"")


def _address(value: bytes) -> bytes:
    """The address without comments, white space and angle brackets (RFC 5322, section 3.2.2)."""
    if b"(" not in value and b'"' not in value:
        return b"".join(value.split()).removeprefix(b"<").removesuffix(b">")
    depth, quoted, kept = 0, False, []
    for piece in _PIECE(value):
        if not depth and piece == b'"':
            quoted = not quoted
        if piece in (b"(", b")") and not quoted:
            depth = max(0, depth + (1 if piece == b"(" else -1))
        elif not depth and (quoted or not piece.isspace()):
            kept.append(piece)
    return b"".join(kept).removeprefix(b"<").removesuffix(b">")
