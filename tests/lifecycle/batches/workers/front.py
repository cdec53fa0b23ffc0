"""Batches of messages to `WHAT@test`; those to `WHAT@alone` are handled at once."""

from __future__ import annotations

import os
from typing import Any

from maildefer.routing import batch, route, stateless
from workers.actions import ACTIONS, handled
from workers.journal import note

LIMIT, LINGER = int(os.environ.get("BATCH_LIMIT", "10")), float(os.environ.get("BATCH_LINGER", "0.3"))


@route("(what)(argument)@test")
@stateless
@batch(limit=LIMIT, linger=LINGER)
def TOGETHER(messages: list[Any]) -> dict[Any, Exception]:
    return handled(messages)


@route("(what)(argument)@alone")
@stateless
def ALONE(message: Any, what: str, argument: str) -> None:
    note("alone", message)
    ACTIONS[what](argument)
