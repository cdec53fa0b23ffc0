"""What a program's undeliverable queue is given: the message, and why."""

from __future__ import annotations

import sys
import traceback
from typing import Any


def give(queue: Any, message: Any, reason: str, /, **facts: object) -> None:
    """To a `Queue` with the reason beside it; anything else with a `push` gets the message alone. Raises what it does.

    In an `except` clause, the exception is told with it.
    """
    take = getattr(queue, "push_undeliverable", None)
    if take is None:
        queue.push(message)
        return
    if (fault := sys.exception()) is not None and "error" not in facts:
        facts |= {"error": f"{type(fault).__name__}: {fault}", "traceback": traceback.format_exc()}
    take(message, reason, **facts)
