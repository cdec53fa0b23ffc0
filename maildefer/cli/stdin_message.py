"""Reads a message from standard input, finds its recipients, and adds missing headers."""

from __future__ import annotations

import re
from email.utils import formataddr, formatdate, make_msgid
from typing import IO, Final

from maildefer.message import addresses

_END_OF_HEADERS: Final = re.compile(rb"(?:\A|\n)\r?\n")
_ENDS: Final = re.compile(rb"[\r\n]+")
_FIELD: Final = re.compile(rb"^([!-9;-~]+)[ \t]*:((?:.|\n[ \t])*)(?:\n|\Z)", re.MULTILINE)


def read(source: IO[bytes], *, ignore_dots: bool) -> bytes:
    """Read all of standard input, or up to a line with a single dot."""
    if ignore_dots:
        return source.read()
    lines = []
    for line in source:
        if line in (b".\n", b".\r\n", b"."):
            break
        lines.append(line)
    return b"".join(lines)


def recipients_of(data: bytes) -> tuple[list[str], bytes]:
    """The addresses in To, Cc and Bcc, and the message without its Bcc."""
    head, body = _divided(data)
    found: list[str] = []
    for name, value in _FIELD.findall(head):
        if name.lower() in (b"to", b"cc", b"bcc"):
            found += addresses.every(value)
    kept = _FIELD.sub(lambda m: b"" if m[1].lower() == b"bcc" else m[0], head)
    return found, kept + body


def completed(data: bytes, *, sender: str, name: str | None, host: str) -> bytes:
    """The message with From, Date and Message-ID on top where it has none; all else byte for byte."""
    head, body = _divided(data)
    end = b"\r\n" if b"\r\n" in head else b"\n"
    known = {found[0].lower() for found in _FIELD.findall(head)}
    lacking = [
        ("From", formataddr((name, sender)) if name else sender),
        ("Date", formatdate(localtime=True)),
        ("Message-ID", make_msgid(domain=host)),
    ]
    added = [
        _ENDS.sub(b" ", f"{field}: {text}".encode("utf-8", "replace")) + end
        for field, text in lacking
        if text and field.lower().encode() not in known
    ]
    return b"".join(added) + (head if known else end) + (body if known else data)


def _divided(data: bytes) -> tuple[bytes, bytes]:
    """The lines of the headers, and the rest from the empty line on."""
    found = _END_OF_HEADERS.search(data)
    if found is None:
        return data, b""
    at = found.start() + (found[0].startswith(b"\n") and len(found[0]) > 1)
    return data[:at], data[at:]
