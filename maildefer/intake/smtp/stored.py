"""From a received message to the replies for its recipients, with the events that tell of it."""

from __future__ import annotations

import time

from maildefer import events
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.protocol import Message, Stored


async def accept(line: WriterClient, message: Message, size_bytes: int) -> dict[str, str]:
    """Each recipient's reply; returns when all pushes are durable or have failed (I1).

    `size_bytes` is the whole message's, of which `message` may be the last part.
    """
    began = time.monotonic()
    stored = dict(zip(message.recipients, await line.push(message), strict=True))
    failed = {recipient: each for recipient, each in stored.items() if not each.key}
    if not failed or not message.together:
        _tell_accepted(message, stored, size_bytes, time.monotonic() - began)
    for recipient, each in failed.items():
        events.emit(
            "intake.refused",
            client=message.client,
            sender=message.sender,
            recipient=recipient,
            reason=each.reason,
        )
    return {recipient: each.reply for recipient, each in stored.items()}


def _tell_accepted(message: Message, stored: dict[str, Stored], size_bytes: int, seconds: float) -> None:
    keys = {recipient: each.key for recipient, each in stored.items() if each.key}
    if keys:
        events.emit(
            "intake.accepted",
            keys=" ".join(keys.values()),
            sender=message.sender,
            recipients=" ".join(keys),
            bytes=size_bytes,
            client=message.client,
            duration_ms=events.ms(seconds),
        )
