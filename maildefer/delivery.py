"""Delivery to users' Maildirs, and forwarding to other addresses by a relay.

See `docs/delivery.md`. A relay that speaks LMTP, also on a socket file, is `maildefer.server.Relay(…, lmtp=True)`.
"""

from __future__ import annotations

import os
import time
from typing import Any

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer import events
from maildefer.errors import NotAQueue
from maildefer.host.identity import this_host
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Pusher
from maildefer.message import addresses
from maildefer.message.dsn.asked import ForwardedBytes, passed_on
from maildefer.message.envelope import block, date, encode_address
from maildefer.message.request import MailRequest, bytes_of, envelope_of

__all__ = ["deliver", "forwarded"]

# One for each Maildir and process, so that its threads share directory syncs.
_pushers: dict[str, Pusher] = {}
os.register_at_fork(after_in_child=_pushers.clear)  # see `maildefer.queue`
journal.report_with(events.emit)


def deliver(message: object, maildir: str, *, sender: str | None = None, recipient: str | None = None) -> str:
    """Put a message into a user's Maildir, or a folder of it (`~ann/Maildir/.Lists`); durable when it returns.

    `message` may be anything that `Queue.push` takes. With a recipient, given or the message's own, Return-Path,
    Delivered-To and Received are put on top. Returns the file's name in `new/`. The directory does not become a queue:
    nothing else is made in it. Any thread may call. Raises NotAQueue where there is no Maildir, AddressRefused,
    StorageFault's kinds.
    """
    data = bytes_of(message)
    known = envelope_of(message)
    to = recipient if recipient is not None else known.recipient
    by = sender if sender is not None else known.sender
    dsn = known.dsn and passed_on(message, by)
    host = this_host().label

    def compose(stem: str) -> tuple[bytes, ...]:
        if not to:
            return (data,)
        return block(stem, by, to, host=host, when=time.time(), via="maildir", dsn=dsn), data

    return _pusher(maildir).push(compose)


def forwarded(message: MailRequest, to: addresses.Given = None) -> bytes:
    """The bytes of a received message for a relay, below a Received line of this host, by which loops are detected.

    If the message goes `to` another address than its recipient, the recipient is added in a Delivered-To line, so that
    the front end refuses the message if it comes back (RFC 5321, section 6.3). For the same address there is no such
    line, since the next server would take it for a mail loop.
    """
    data = message.to_bytes()
    end = "\r\n" if b"\r\n" in data[: data.find(b"\n") + 1] else "\n"
    identity = f" id {message.key.partition(',')[0]}" if message.key else ""
    lines = [f"Received: by {os.uname().nodename} (maildefer) with forward{identity}; {date(time.time())}"]
    given: Any = message.To
    if given and to is not None and given.lower() not in {one.lower() for one in addresses.every(to)}:
        lines.insert(0, f"Delivered-To: {encode_address(given).decode('utf-8', 'surrogateescape')}")
    top = "".join(line + end for line in lines).encode("utf-8", "surrogateescape")
    onwards = ForwardedBytes(top + data)
    onwards.came_with = message.came_with
    return onwards


def _pusher(maildir: str) -> Pusher:
    layout = Layout(os.path.expanduser(maildir))
    if not os.path.isdir(layout.new) or not os.path.isdir(layout.tmp):
        raise NotAQueue(layout.path, "it has no tmp and new")
    return _pushers.setdefault(layout.path, Pusher(layout, host=this_host().label))
