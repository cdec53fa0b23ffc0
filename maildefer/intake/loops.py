"""Whether a message goes around in circles, by the trace lines that it brings along.

Each server adds a Received line (RFC 5321, section 6.3: some hundred of them are a loop; Postfix takes 50 for one), and
one that delivers for an address and may forward adds Delivered-To with it: who sees its own there has seen it before.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from maildefer.intake.limits import Limits
from maildefer.message.envelope import HEADER_LIMIT_BYTES, encode_address, split

_DELIVERED: Final = re.compile(rb"\ndelivered-to:[ \t]*<?([^\n>]*?)>?[ \t\r]*(?=\n)").findall
_NAME_BYTES: Final = 2000  # kept of a line that has not ended: its name, and an address


class Trace:
    """Reads the header section of one message, which may come in parts; keeps a line of it at most."""

    def __init__(self, limits: Limits) -> None:
        self._max_hops = limits.max_hops
        self._max_deliveries = limits.max_deliveries
        self._hops = 0
        self._delivered: list[bytes] = []
        self._rest: bytes | None = None  # of a line; None: nothing has come
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
            end = lines.rfind(b"\n")
        self._rest = lines[end + 1 : end + 1 + _NAME_BYTES]
        self._note(lines[: end + 1].lower())

    def loops(self, recipients: Sequence[str]) -> dict[str, str]:
        """The recipients for whom it is a loop, as far as the header section is known, and why, for the log."""
        if self._hops >= self._max_hops:
            return dict.fromkeys(recipients, f"{self._hops} Received lines")
        if not self._max_deliveries or not self._delivered:
            return {}
        return {
            recipient: "delivered to it before"
            for recipient in recipients
            if self._delivered.count(encode_address(recipient).lower()) >= self._max_deliveries
        }

    def _note(self, lines: bytes) -> None:
        self._hops += lines.count(b"\nreceived:")
        if b"\ndelivered-to:" in lines:
            self._delivered += _DELIVERED(lines)
