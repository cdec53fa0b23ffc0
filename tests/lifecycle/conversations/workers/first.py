"""A conversation with two states, which a message moves to and fro."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maildefer.routing import route, state_key_generator
from workers.counting import count


@state_key_generator
def SENDER(module: str, message: Any) -> str:
    return "count"


@route("(what)(argument)@test")
def START(message: Any, what: str, argument: str) -> Callable[..., Any]:
    count(message, what, argument)
    return ODD


@route("(what)(argument)@test")
def ODD(message: Any, what: str, argument: str) -> Callable[..., Any]:
    count(message, what, argument)
    return START
