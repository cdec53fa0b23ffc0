"""Reads many messages from one stream: an mbox, or messages with a NUL behind each.

A message has no NUL (RFC 5322, section 2.2), so this is the one separator that needs no quoting. An mbox is read as
mboxrd, in which every line of a message that begins with any number of ">" and "From " has one ">" more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import IO, Final, NamedTuple

_READ_BYTES: Final = 1 << 16
_QUOTED: Final = re.compile(rb">+From ").match


class StreamMessage(NamedTuple):
    """A message and its sender: empty for the null sender, None if the stream does not name it."""

    data: bytes
    sender: str | None = None


class NotAnMbox(ValueError):
    """The stream is no mbox: its first line is no "From " line."""


def null_separated(source: IO[bytes]) -> Iterator[StreamMessage]:
    """The messages between NULs; the last one need not be followed by one."""
    pieces: list[bytes] = []
    while data := source.read(_READ_BYTES):
        *whole, rest = data.split(b"\0")
        for end in whole:
            if message := b"".join((*pieces, end)):
                yield StreamMessage(message)
            pieces.clear()
        pieces.append(rest)
    if message := b"".join(pieces):
        yield StreamMessage(message)


def mbox(source: IO[bytes]) -> Iterator[StreamMessage]:
    """The messages of an mbox; a "From " line begins one where an empty line is before it, as in all four formats.

    Raises NotAnMbox, before the first message.
    """
    lines: list[bytes] = []
    sender: str | None = None
    begun = empty_before = False
    for line in source:
        if line.startswith(b"From ") and (empty_before or not begun):
            if begun:
                yield StreamMessage(_message(lines), sender)
            lines, sender, begun, empty_before = [], _sender(line), True, False
            continue
        if not begun:
            if line.strip():
                raise NotAnMbox(
                    f"no mbox: it begins with {line[:40].decode('latin-1')!r}, not with a From line"
                )
            continue
        empty_before = line in (b"\n", b"\r\n")
        lines.append(line[1:] if _QUOTED(line) else line)
    if begun:
        yield StreamMessage(_message(lines), sender)


def _message(lines: list[bytes]) -> bytes:
    """The message without the empty line that an mbox has between messages."""
    if len(lines) > 1 and lines[-1] in (b"\n", b"\r\n"):
        lines.pop()
    return b"".join(lines)


def _sender(line: bytes) -> str | None:
    """The sender in `From SENDER DATE`; a bounce has MAILER-DAEMON there."""
    words = line.decode("utf-8", "surrogateescape").split(" ")
    if len(words) < 2 or not (word := words[1].strip()):
        return None
    return "" if word.upper() == "MAILER-DAEMON" else word if "@" in word else None
