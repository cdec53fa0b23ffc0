"""Handlers of the second queue."""

from __future__ import annotations

from typing import Any

from maildefer.routing import route, stateless
from workers.front import ACTIONS
from workers.journal import note


@route("(what)(argument)@test")
@stateless
def HANDLE(message: Any, what: str, argument: str) -> None:
    note("start", message)
    note("back", message)
    ACTIONS[what](argument)
    note("end", message)
