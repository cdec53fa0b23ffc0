"""Reads message data: between DATA's 354 and its lone dot, or in the chunks of BDAT (RFC 3030).

Only CRLF.CRLF ends a message (RFC 5321, section 4.1.1.4), so that no message can be smuggled in after a bare LF.
The message is kept as sent, with dots unstuffed and each CRLF as LF, as Maildir and its other writers have it; a bare
CR or LF stays as it is. Lines may be of any length, since the bytes are not changed otherwise (I9).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from maildefer.intake.outcomes import Refusal

_END: Final = b"\r\n.\r\n"
# A CR that is bare, or whose line is followed by one with a dot: where there is none, taking all CR away does the whole
# work, in a fifth of the time that `find` and two `replace` take.
_ODD: Final = re.compile(rb"\r(?!\n(?!\.))").search
_BARE: Final = re.compile(rb"\r(?!\n)").search


class DataReader(Protocol):
    """Reads message data until it is complete."""

    def feed(self, data: bytes) -> bytes | None:
        """Read more; returns what follows the data, None before its end. ConnectionError: the connection is aborted."""

    def pause(self) -> Awaitable[None] | None:
        """What to wait for before more is read; None for nothing."""


class MessageBuffer:
    """Holds the bytes of one message until they are sent to the writer, or why the message is refused."""

    def __init__(
        self,
        limit_bytes: int,
        *,
        hold: Callable[[int], bool],
        part_bytes: int,
        send_part: Callable[[tuple[bytes, ...]], Awaitable[None]],
    ) -> None:
        """`hold` accounts for bytes in memory, False where there are too many; `send_part` sends them to the writer."""
        self.refusal: Refusal | None = None
        self.kept_bytes = 0  # and not sent yet
        self._limit_bytes = limit_bytes
        self._hold = hold
        self._part_bytes = part_bytes
        self._send_part = send_part
        self._size_bytes = 0
        self._pieces: list[bytes] = []

    def count_bytes(self, more_bytes: int) -> None:
        """Count bytes before they are kept. ConnectionError for a client that goes on after twice the limit."""
        self._size_bytes += more_bytes
        if self._size_bytes > self._limit_bytes:
            self.refuse(Refusal.TOO_LARGE)
            if self._size_bytes > 2 * self._limit_bytes:
                raise ConnectionError(f"{self._size_bytes} bytes without an end")

    def keep_bytes(self, piece: bytes) -> None:
        """Keep bytes; of a refused message none are, and it is read to its end, when the reply may come."""
        if self.refusal is not None or not piece:
            return
        if self._hold(len(piece)):
            self.kept_bytes += len(piece)
            self._pieces.append(piece)
        else:
            self.refuse(Refusal.TOO_MUCH_HELD)

    def refuse(self, refusal: Refusal) -> None:
        """Refuse the message; the first reason counts."""
        self._pieces.clear()
        if self.refusal is None:
            self.refusal = refusal

    def pause(self) -> Awaitable[None] | None:
        """A part that is being sent, to wait for before more is read; None for nothing."""
        if self.refusal is not None or self.kept_bytes < self._part_bytes:
            return None
        return self._send_part(self.take_pieces())

    def take_pieces(self) -> tuple[bytes, ...]:
        """The pieces kept since the last call; they stay accounted for."""
        pieces = tuple(self._pieces)
        self._pieces.clear()
        return pieces


class DotReader:
    """Reads the data of DATA, up to a line that is a dot (RFC 5321, section 4.5.2)."""

    def __init__(self, buffer: MessageBuffer) -> None:
        self._buffer = buffer
        self._held = b"\r\n"  # the end of the message may begin with it, also where its first line is the dot
        self._first = True

    def feed(self, data: bytes) -> bytes | None:
        """Read more; returns what follows the end of the message, None before it."""
        data = self._held + data
        if (odd := _ODD(data)) is None:  # no line begins with a dot, so it is not the end
            kept = len(data) - 2 * data.endswith(b"\r\n")
            self._keep(data[:kept].replace(b"\r", b""), kept)
            self._held = data[kept:]
            return None
        if data.startswith(_END, end := odd.start()):  # nothing before it is odd
            self._keep(data[: end + 2].replace(b"\r", b""), end + 2)
            return data[end + len(_END) :]
        if (end := data.find(_END, end)) < 0:
            keep = next((size for size in (4, 3, 2, 1) if data.endswith(_END[:size])), 0)
            kept = len(data) - keep
            self._keep(_unstuffed(data[:kept]), kept)
            self._held = data[kept:]
            return None
        self._keep(_unstuffed(data[: end + 2]), end + 2)
        return data[end + len(_END) :]

    def pause(self) -> Awaitable[None] | None:
        return self._buffer.pause()

    def _keep(self, text: bytes, sent_bytes: int) -> None:
        """Keep the text that so many bytes make; the CRLF before the first of the message is not part of it."""
        if not sent_bytes:
            return
        self._buffer.count_bytes(sent_bytes - 2 if self._first else sent_bytes)
        self._buffer.keep_bytes(text[1:] if self._first else text)
        self._first = False


class ChunkReader:
    """Reads all chunks of one message (RFC 3030); a chunk may end between CR and LF."""

    def __init__(self, buffer: MessageBuffer) -> None:
        self._buffer = buffer
        self._left_bytes = 0
        self._held = b""

    def begin_chunk(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes

    def feed(self, data: bytes) -> bytes | None:
        """Read more; returns what follows the chunk, None before its end."""
        chunk = data[: self._left_bytes]
        self._left_bytes -= len(chunk)
        self._buffer.count_bytes(len(chunk))
        text = self._held + chunk
        self._held = b"\r" if text.endswith(b"\r") else b""
        self._buffer.keep_bytes(_with_lf(text[: len(text) - len(self._held)]))
        return None if self._left_bytes else data[len(chunk) :]

    def pause(self) -> Awaitable[None] | None:
        return self._buffer.pause()

    def end_message(self) -> None:
        """Note that the last chunk has been read."""
        self._buffer.keep_bytes(self._held)


class DiscardingReader:
    """Reads and drops a chunk that belongs to no message, as a command follows it."""

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes

    def feed(self, data: bytes) -> bytes | None:
        rest = data[self._left_bytes :]
        self._left_bytes -= min(len(data), self._left_bytes)
        return None if self._left_bytes else rest

    def pause(self) -> None:
        return None


def _unstuffed(data: bytes) -> bytes:
    return _with_lf(data.replace(b"\r\n.", b"\r\n"))


def _with_lf(data: bytes) -> bytes:
    """Replace each CRLF by LF."""
    return data.replace(b"\r", b"") if _BARE(data) is None else data.replace(b"\r\n", b"\n")
