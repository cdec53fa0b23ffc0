"""Whether a message goes around in circles, by the trace lines that it brings along.

Each server adds a Received line (RFC 5321, section 6.3: some hundred of them are a loop; Postfix takes 50 for one), and
one that delivers for an address and may forward adds Delivered-To with it: who sees its own there has seen it before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from maildefer.intake.options import FrontEndOptions
from maildefer.message.envelope import HEADER_LIMIT_BYTES, encode_address, split

# In lower case, a colon as RFC 5322, section 4.5, still allows it; with the lines that a value is folded into.
_RECEIVED: Final = re.compile(rb"\nreceived[ \t]*:").findall
_DELIVERED: Final = re.compile(rb"\ndelivered-to[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)(?=\n)").findall
_PIECE: Final = re.compile(rb'\\.|["()\s]|[^\\"()\s]+|\\', re.DOTALL).findall
_FIELD_BYTES: Final = 2000  # kept of a field that has not ended: its name, and an address


class Trace:
    """Reads the header section of one message, which may come in parts; keeps a field of it at most."""

    def __init__(self, limits: FrontEndOptions) -> None:
        self._max_hops = limits.max_hops
        self._max_deliveries = limits.max_deliveries
        self._hops = 0
        self._delivered: list[bytes] = []
        self._rest: bytes | None = None  # of a field; None: nothing has come
        self._size_bytes = 0
        self._ended = False

    def feed(self, *pieces: bytes) -> None:
        """The next part, as Maildir has it, in pieces. A block of our own on top of it all does not count."""
        if self._ended:  # the header section, or as much of it as is read
            return
        data = b"".join(pieces)
        if self._rest is None:
            data, self._rest = data[split(data)[1] :], b""
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
        """The recipients for whom it is a loop, as far as the header section is known, and why, for the log."""
        hops, delivered = self._hops, self._delivered
        if self._rest:  # of which more may come, or nothing: as far as its lines have ended
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
    """How many Received lines are among them, and whom Delivered-To names."""
    lines = lines.lower()
    delivered = map(_address, _DELIVERED(lines)) if b"\ndelivered-to" in lines else ()
    return len(_RECEIVED(lines)), list(delivered)


def _last_field(lines: bytes) -> int:
    """Where the end of line is before the last field, which more lines may follow."""
    end = lines.rfind(b"\n")
    while end > 0 and (end + 1 == len(lines) or lines[end + 1 : end + 2] in (b" ", b"\t")):
        end = lines.rfind(b"\n", 0, end)
    return end


def _shortened(field: bytes) -> bytes:
    """One that is cut is one line, lest what comes next is taken for another's beginning."""
    if len(field) <= _FIELD_BYTES:
        return field
    return field[:_FIELD_BYTES].replace(b"\n", b" ") + (b"\n" if field.endswith(b"\n") else b"")


def _address(value: bytes) -> bytes:
    """What is left of it without comments, white space, and angle brackets around it (RFC 5322, section 3.2.2)."""
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
