"""Batches of messages to `WHAT@test`; those to `WHAT@alone` are handled at once."""

from __future__ import annotations

import os
from typing import Any

from maildefer.routing import batch, route, stateless
from workers.actions import ACTIONS, handled
from workers.journal import note

TERMS: dict[str, Any] = {
    "limit": int(os.environ.get("BATCH_LIMIT", "10")),
    "linger": float(os.environ.get("BATCH_LINGER", "0.3")),
    **dict.fromkeys(os.environ.get("BATCH_CALLS", "").split(), True),
}


@route("(what)(argument)@test")
@stateless
@batch(**TERMS)
def TOGETHER(messages: list[Any]) -> dict[Any, Exception]:
    return handled(messages)


@route("(what)(argument)@alone")
@stateless
def ALONE(message: Any, what: str, argument: str) -> None:
    note("alone", message)
    ACTIONS[what](argument)
