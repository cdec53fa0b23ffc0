"""The same handler, in a worker that doesn't note which message its lines are about, nor looks for what was printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maildefer import log_context
from maildefer.routing import route, stateless


def run(handlers: Callable[[Any], Any], argument: Any) -> Any:
    return handlers(argument)


def begin(message: Any, handler: str) -> None:
    pass


log_context.run_handlers, log_context.begin_handler = run, begin


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message: object, name: str = "", host: str = "") -> None:
    """Nothing is to be done."""
