"""Puts messages into a queue in the place of sending them: one entry for each recipient."""

from __future__ import annotations

import os
import time
from typing import Final

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.host.identity import this_host
from maildefer.maildir.outbox import current
from maildefer.maildir.push import Compose, Pusher
from maildefer.message.envelope import block
from maildefer.message.outgoing.wire_message import WireMessage

_HOST: Final = os.uname().nodename


def put(queue: str, wire: WireMessage, *, now: bool) -> None:
    """Push an entry for each recipient: of a handler, to be seen once it has returned; with `now`, at once.

    Raises what a push raises, and then has pushed none of them.
    """
    pusher = Pusher(current.open_named(queue), host=this_host().label)
    entries = [_entry(wire, each) for each in dict.fromkeys(wire.recipients)]
    current.push_together(pusher, entries, now=now)


def _entry(wire: WireMessage, recipient: str) -> Compose:
    """Return what composes the entry for one recipient."""

    def compose(stem: str) -> tuple[bytes, bytes]:
        sender, dsn = wire.sender, wire.dsn
        top = block(stem, sender, recipient, host=_HOST, when=time.time(), via="push", dsn=dsn)
        return top, wire.data

    return compose
