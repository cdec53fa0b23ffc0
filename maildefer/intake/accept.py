"""From a received message to the replies for its recipients, with the events that tell of it."""

from __future__ import annotations

import time

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.line import Line
from maildefer.intake.wire import Message, Stored
from maildefer.message.envelope import hops

MAX_HOPS = 100  # RFC 5321, section 6.3


async def accept(line: Line, message: Message) -> dict[str, str]:
    """Each recipient's reply; returns when all pushes are durable or have failed (I1)."""
    if hops(message.data) >= MAX_HOPS:
        events.emit("intake.refused", client=message.client, sender=message.sender, reason="mail loop")
        return dict.fromkeys(message.recipients, replies.LOOP)
    began = time.monotonic()
    stored = dict(zip(message.recipients, await line.push(message), strict=True))
    failed = {recipient: each for recipient, each in stored.items() if not each.key}
    if not failed or not message.together:
        _tell_accepted(message, stored, time.monotonic() - began)
    for recipient, each in failed.items():
        events.emit(
            "intake.refused",
            client=message.client,
            sender=message.sender,
            recipient=recipient,
            reason=each.reason,
        )
    return {recipient: each.reply for recipient, each in stored.items()}


def _tell_accepted(message: Message, stored: dict[str, Stored], seconds: float) -> None:
    keys = {recipient: each.key for recipient, each in stored.items() if each.key}
    if keys:
        events.emit(
            "intake.accepted",
            keys=" ".join(keys.values()),
            sender=message.sender,
            recipients=" ".join(keys),
            bytes=len(message.data),
            client=message.client,
            duration=seconds,
        )
