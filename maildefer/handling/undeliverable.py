"""What is done with a message that is given up: its push to a program's undeliverable queue, a report to its sender."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol

report: Callable[[Any, object, str | None, object], None] | None = None
"""Called before a claimed message is buried: see `message.notices`. None where the settings have no `notices`."""


class Pushable(Protocol):
    """A queue that takes undeliverable messages."""

    def push(self, message: Any, /) -> object: ...


def push(queue: Any, message: Any, reason: str, /, **facts: object) -> None:
    """Push to a `Queue` with the reason beside the message; any other object with a `push` gets the message alone.

    In an `except` clause, the exception is added to the facts. Raises what the push raises.
    """
    take = getattr(queue, "push_undeliverable", None)
    if take is None:
        queue.push(message)
        return
    if (fault := sys.exception()) is not None and "error" not in facts:
        facts |= {"error": f"{type(fault).__name__}: {fault}", "traceback": traceback.format_exc()}
    take(message, reason, **facts)
