"""Adds `Date` and `Message-ID` to a message that has none, and to an answer the fields that say so (RFC 5322, 3.6)."""

from __future__ import annotations

import os
import re
import time
from typing import Final

from maildefer.message.envelope import date
from maildefer.message.outgoing.answer import thread_fields
from maildefer.message.request import MailRequest

_FIELD: Final = re.compile(
    rb"^(date|message-id|in-reply-to|references|auto-submitted):", re.IGNORECASE | re.MULTILINE
)
_HEADER: Final = re.compile(rb"[!-9;-~]+:|From ")
_FROM: Final = re.compile(rb"^from:[^\n]*?@([A-Za-z0-9.-]+)", re.IGNORECASE | re.MULTILINE)
_DOMAIN: Final = re.compile(r"[A-Za-z0-9.-]+")


def stamped(
    data: bytes,
    sender: str,
    name: str | None,
    host: str,
    answered: MailRequest | None = None,
    when: float | None = None,
) -> bytes:
    """`data`, with CRLF line ends, with those of the fields on top that it lacks.

    `name` makes the Message-ID, so that it is the same at each attempt; without one it is a new one. Its domain is the
    author's, else the sender's, else `host`. `when` it was made is now, unless given. An answer names the message
    `answered`, and says that a program wrote it.
    """
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[: end + 2]
    has_head = data.startswith(b"\r\n") or _HEADER.match(data) is not None
    there = {found[1].lower() for found in _FIELD.finditer(head)} if has_head else set()
    added = b""
    if b"date" not in there:
        added += b"Date: %b\r\n" % date(time.time() if when is None else when).encode()
    if b"message-id" not in there:
        left = name or f"{time.time_ns():x}.{os.urandom(8).hex()}"
        added += b"Message-ID: <%b@%b>\r\n" % (left.encode(), _domain(head, sender, host).encode())
    if answered is not None:
        added += b"" if there & {b"in-reply-to", b"references"} else thread_fields(answered)
        added += b"" if b"auto-submitted" in there else b"Auto-Submitted: auto-replied\r\n"
    if not added:
        return data
    return added + data if has_head else added + b"\r\n" + data


def _domain(head: bytes, sender: str, host: str) -> str:
    if found := _FROM.search(head):
        return found[1].decode().strip(".")
    domain = sender.rpartition("@")[2]
    return domain if domain and _DOMAIN.fullmatch(domain) else host
