"""The relay, and the front ends and receivers that boot modules name.

The code is in `maildefer.message.outgoing.relay`, `maildefer.message.smtp_error`, `maildefer.pool.receiver.receiver`
and `maildefer.pool.receiver.smtp_receiver`; each is imported at its first use, since most handlers import this module
for `Relay` alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from maildefer.message.smtp_error import SMTPError

if TYPE_CHECKING:
    from maildefer.message.outgoing.relay import Relay
    from maildefer.pool.receiver.receiver import QueueReceiver
    from maildefer.pool.receiver.smtp_receiver import LMTPReceiver, SMTPReceiver, undeliverable_message

__all__ = ["LMTPReceiver", "QueueReceiver", "Relay", "SMTPError", "SMTPReceiver", "undeliverable_message"]

_HOMES = {
    "Relay": "maildefer.message.outgoing.relay",
    "SMTPReceiver": "maildefer.pool.receiver.smtp_receiver",
    "LMTPReceiver": "maildefer.pool.receiver.smtp_receiver",
    "undeliverable_message": "maildefer.pool.receiver.smtp_receiver",
    "QueueReceiver": "maildefer.pool.receiver.receiver",
}


def __getattr__(name: str) -> object:
    if name == "smtplib":  # where tests of applications put a stand-in for the network
        return importlib.import_module(name)
    if name == "Relay":
        # Where it finds the project's queue.
        importlib.import_module("maildefer.handling.project.queue_paths")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
