"""Puts messages into a queue in the place of sending them: one entry for each recipient."""

from __future__ import annotations

import os
import time
from typing import Final

from maildefer.errors import MaildeferError
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
    if current.current.get() is None or now:
        _push_all(pusher, entries)
    else:
        for entry in entries:
            current.pushing(pusher)(entry)


def _entry(wire: WireMessage, recipient: str) -> Compose:
    """Return what composes the entry for one recipient."""

    def compose(stem: str) -> tuple[bytes, bytes]:
        sender, dsn = wire.sender, wire.dsn
        top = block(stem, sender, recipient, host=_HOST, when=time.time(), via="push", dsn=dsn)
        return top, wire.data

    return compose


def _push_all(pusher: Pusher, entries: list[Compose]) -> None:
    """Push them all; if one fails, the others are withdrawn, since whoever has sent them will send them again."""
    results = pusher.push_all(entries)
    faults = [one for one in results if isinstance(one, MaildeferError)]
    for key in results if faults else ():
        if isinstance(key, str):
            pusher.withdraw(key)
    for fault in faults:
        raise fault
