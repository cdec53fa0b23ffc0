"""Conversations of async handlers, for messages to `WHAT@talk`."""

from __future__ import annotations

from typing import Any

from maildefer.routing import route
from workers.actions import act


@route("(what)(argument)@talk")
async def START(message: Any, what: str, argument: str) -> Any:
    await act(message, what, argument)
    return AGAIN


@route("(what)(argument)@talk")
async def AGAIN(message: Any, what: str, argument: str) -> Any:
    await act(message, what, argument)
    return AGAIN
