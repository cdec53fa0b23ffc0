"""The bytes between DATA's 354 and its lone dot.

Only CRLF.CRLF ends a message (RFC 5321, section 4.1.1.4), so that nothing can be smuggled in behind a bare LF. What
is kept is the message as sent, dots unstuffed, each CRLF as LF, as Maildir and its other writers have it; bare CR and
bare LF stay what they are. Lines may be of any length, since the bytes go on untouched (I9).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from maildefer.intake import replies

_END: Final = b".\r\n"


@dataclass(frozen=True, slots=True)
class Data:
    """A received message, or the reply for its refusal."""

    message: bytes
    refusal: str | None


async def receive(
    reader: asyncio.StreamReader,
    limit_bytes: int,
    *,
    hold: Callable[[int], bool],
    alive: Callable[[], object],
) -> Data:
    """Read to the end of the message; what is refused is read to its end too, as the reply may not come earlier.

    `hold` accounts for bytes kept, False where there are too many; `alive` is called as data comes. Raises
    ConnectionResetError for a client that sends twice the limit and does not end.
    """
    chunks: list[bytes] = []
    size, tail, refusal = 0, b"\r\n", None
    while tail != b"\r\n.\r\n":
        try:
            chunk = await reader.readuntil(_END)  # also after any other line that ends with a dot
        except asyncio.LimitOverrunError as overrun:  # no dot in sight: take what is there
            chunk = await reader.readexactly(overrun.consumed)
            alive()
        size += len(chunk)
        tail = (tail + chunk)[-5:]
        if refusal is None:
            if size > limit_bytes + len(_END):
                refusal = replies.TOO_LARGE
            elif not hold(len(chunk)):
                refusal = replies.BUSY
        if refusal is None:
            chunks.append(chunk)
            continue
        chunks.clear()
        if size > 2 * limit_bytes:
            raise ConnectionResetError(f"{size} bytes without an end")
    return Data(_unstuffed(b"".join(chunks)[: -len(_END)]) if refusal is None else b"", refusal)


def _unstuffed(data: bytes) -> bytes:
    """RFC 5321, section 4.5.2, backwards; then Maildir's line ends."""
    if data.startswith(b"."):
        data = data[1:]
    return data.replace(b"\r\n.", b"\r\n").replace(b"\r\n", b"\n")
