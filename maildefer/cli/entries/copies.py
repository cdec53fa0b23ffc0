"""Pushing the message of an entry again: one that is kept is replayed, a dead letter is edited. The entry stays.

It gets a fresh key, so that it is a message of its own to claims, journals and `message.once`; its envelope, priority
and unique key are those of the entry, and a call of a task is signed for its new entry.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.errors import UniqueKeyHeld
from maildefer.handling.tasks.call import is_call, signed_anew
from maildefer.handling.tasks.signature import read_secret
from maildefer.host.identity import this_host
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import sized
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.scan import priority_of
from maildefer.maildir.system import SYSTEM, System
from maildefer.message.envelope import Envelope, block, split

Via = Literal["replay", "edit"]


def replay(layout: Layout, found: FoundEntry) -> str:
    """Push the message of a kept entry again; returns the new key. Raises what a look and a push raise."""
    data = entries.read_found(found)
    envelope, offset = split(data, found.key)
    return push_copy(layout, found, data, data[offset:], envelope if offset else None, "replay")


def push_copy(
    layout: Layout,
    found: FoundEntry,
    data: bytes,
    message: bytes,
    envelope: Envelope | None,
    via: Via,
    *,
    system: System = SYSTEM,
) -> str:
    """Push a message that was made of an entry's file, `data`; durable when this returns its key.

    Raises UniqueKeyHeld, AddressRefused, what a push raises; OSError or QueueError where the tasks' secret can't be
    read.
    """
    key, host, journal = found.key, this_host().label, journal_of(layout, system)
    secret = read_secret(layout.path)
    if secret is not None and not is_call(data[split(data, key)[1] :], secret, key):
        secret = None

    def compose(stem: str) -> Sequence[bytes]:
        top = b""
        if envelope is not None:
            sender, recipient = envelope
            top = block(
                stem,
                sender,
                recipient,
                host=host,
                when=time.time(),
                via=via,
                client=f"key {key}",
                dsn=envelope.dsn,
            )
        fresh = sized(stem, len(top) + len(message))
        if journal is not None:
            journal.record_note(fresh, {f"{via}_of": key})
            journal.record_note(key, {via: f"as {fresh}"})
        return [top, message if secret is None else signed_anew(message, secret, fresh)]

    planned = Planned(compose=compose, priority=priority_of(key))
    if IN_KEY not in key:
        return Pusher(layout, host=host, system=system).push(planned)
    marked = Markers(layout, host=host, system=system).push_again(key, planned)
    if not marked.is_new:
        raise UniqueKeyHeld(key, marked.key)
    return marked.key
