"""The batches of the second queue."""

from __future__ import annotations

from typing import Any

from maildefer.routing import batch, route, stateless
from workers.actions import handled
from workers.front import TERMS


@route("(what)(argument)@test")
@stateless
@batch(**TERMS)
def LATER(messages: list[Any]) -> dict[Any, Exception]:
    return handled(messages)
