"""Where handlers bring mail to: users' Maildirs, and other addresses by way of a relay.

See `docs/delivery.md`. A relay that speaks LMTP, also on a socket file, is `maildefer.server.Relay(…, lmtp=True)`.
"""

from __future__ import annotations

import os
import time

from maildefer import events
from maildefer.errors import NotAQueue
from maildefer.host.identity import this_host
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Pusher
from maildefer.message import push_bytes
from maildefer.message.envelope import block
from maildefer.message.forwarding import forwarded

__all__ = ["deliver", "forwarded"]

_pushers: dict[
    str, Pusher
] = {}  # one for each Maildir and process, so that its threads share directory syncs
os.register_at_fork(after_in_child=_pushers.clear)  # see `maildefer.queue`
journal.tell_with(events.emit)


def deliver(message: object, maildir: str, *, sender: str | None = None, recipient: str | None = None) -> str:
    """Put a message into a user's Maildir, or a folder of it (`~ann/Maildir/.Lists`); durable when it returns.

    Takes what `Queue.push` takes; with a recipient, given or the message's own, Return-Path, Delivered-To and Received
    are put on top. Returns the file's name in `new/`. The directory becomes no queue: nothing else is made in it. Any
    thread. Raises NotAQueue where there is no Maildir, AddressRefused, StorageFault's kinds.
    """
    data = push_bytes.bytes_of(message)
    known = push_bytes.envelope_of(message)
    to = recipient if recipient is not None else known.recipient
    by = sender if sender is not None else known.sender
    host = this_host().label

    def compose(stem: str) -> tuple[bytes, ...]:
        if not to:
            return (data,)
        return block(stem, by, to, host=host, when=time.time(), via="maildir"), data

    return _pusher(maildir).push(compose)


def _pusher(maildir: str) -> Pusher:
    layout = Layout(os.path.expanduser(maildir))
    if not os.path.isdir(layout.new) or not os.path.isdir(layout.tmp):
        raise NotAQueue(layout.path, "it has no tmp and new")
    return _pushers.setdefault(layout.path, Pusher(layout, host=this_host().label))
