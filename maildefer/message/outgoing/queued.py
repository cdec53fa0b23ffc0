"""Puts messages into a queue in the place of sending them: one entry for each recipient."""

from __future__ import annotations

import os
from typing import Final

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.host.identity import this_host
from maildefer.maildir.outbox import current
from maildefer.maildir.push import Pusher
from maildefer.message.outgoing.wire_message import WireMessage
from maildefer.message.request import compose_of

_HOST: Final = os.uname().nodename


def put(queue: str, wire: WireMessage, *, now: bool) -> None:
    """Push an entry for each recipient: of a handler, to be seen once it has returned; with `now`, at once.

    Raises what a push raises, and then has pushed none of them.
    """
    pusher = Pusher(current.open_named(queue), host=this_host().label)
    sender, data, dsn = wire.sender, wire.data, wire.dsn
    entries = [compose_of(data, sender, to, host=_HOST, dsn=dsn) for to in dict.fromkeys(wire.recipients)]
    current.push_together(pusher, entries, now=now)
