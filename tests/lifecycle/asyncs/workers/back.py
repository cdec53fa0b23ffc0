"""At most two of these run at a time, on all hosts."""

from __future__ import annotations

from typing import Any

from maildefer.routing import concurrency, route, stateless
from workers.actions import act


@route("(what)(argument)@test")
@stateless
@concurrency(2)
async def TWO(message: Any, what: str, argument: str) -> None:
    await act(message, what, argument)
