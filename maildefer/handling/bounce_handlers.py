"""`@bounce_to`: bounces go to functions of their own, the rest to the handler."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from maildefer.handling import handler_marks
from maildefer.handling.handler_check import never_runs
from maildefer.handling.handler_marks import Handler

Function = TypeVar("Function", bound=Handler)


def bounce_to(soft: Callable[[Any], object], hard: Callable[[Any], object]) -> Callable[[Function], Function]:
    """Stands below `@route`. A bounce goes to `soft` or `hard`, whose result is the handler's; all else goes on.

    Both take the message alone. Raises `TypeError` if they can't be called, or would not run, and on a function that
    takes a `@batch`.
    """
    for name, function in (("soft", soft), ("hard", hard)):
        if not callable(function):
            raise TypeError(f"bounce_to({name}={function!r}): give a function that takes the message")
        if never_runs(function):
            raise TypeError(f"bounce_to({name}={function!r}): no call runs its body: give a plain function")

    def decorate(func: Function) -> Function:
        if handler_marks.batch_of(func) is not None:
            raise TypeError(
                f"@bounce_to looks at one message, and {handler_marks.full_name(func)} takes a @batch"
            )

        @functools.wraps(func)
        def handler(message: Any, *arguments: Any, **captures: Any) -> object:
            if message.is_bounce():
                if message.bounce.is_hard():
                    return hard(message)
                if message.bounce.is_soft():
                    return soft(message)
            return func(message, *arguments, **captures)

        handler_marks.mark_one(handler)
        return cast(Function, handler)

    return decorate
