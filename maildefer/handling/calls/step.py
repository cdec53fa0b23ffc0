"""A handler with its marks looked up once, as a dispatcher runs it."""

from __future__ import annotations

import functools
from collections.abc import Awaitable
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, Protocol

from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import BatchTerms, Handler, RetryTerms
from maildefer.handling.limits.limit import Limit, limits_of
from maildefer.handling.project.settings import loaded_settings
from maildefer.handling.results import result_of_each

if TYPE_CHECKING:
    from maildefer.handling.calls.middleware import Middleware

CALL: Final = "batch "  # what the name of a call's token begins with; a conversation's begins with a bracket
EXCLUSIVE_CALL: Final = "exclusive batch "


@dataclass(frozen=True, slots=True)
class HandlerStep:
    """A handler and its marks. `function` takes one message; `batch_function` takes a list if there are `terms`."""

    function: Handler
    name: str
    module: str
    state: str
    stateless: bool
    nolocking: bool
    terms: BatchTerms | None
    batch_function: Handler
    retry: RetryTerms | None = None
    timeout_seconds: float | None = None
    limits: tuple[Limit, ...] = ()
    most_timeouts: int = 0
    is_async: bool = False
    keep: float | None = None

    @property
    def call_token(self) -> str:
        """The name of the token under which a `@batch` function is called; empty where none is needed."""
        if self.terms is None or self.terms.overlap:
            return ""
        return f"{EXCLUSIVE_CALL if self.terms.exclusive else CALL}{self.name}"


class HasMiddleware(Protocol):
    """The part of a router that puts middleware around its handlers."""

    middleware: Middleware | None
    generation: int


def use_middleware(router: HasMiddleware) -> None:
    """Have the middleware of the loaded settings put around the router's handlers. Raises ConfigurationError."""
    settings = loaded_settings()
    if settings is None or not hasattr(settings, "middleware"):
        return
    from maildefer.handling.calls.middleware import middleware_of  # few projects have any

    router.middleware = middleware_of(settings)
    router.generation += 1


def step_of(function: Handler, middleware: Middleware | None = None) -> HandlerStep:
    """Look up the marks of a handler, and put the middleware around it."""
    return HandlerStep(
        one_by_one(function, middleware),
        handler_marks.full_name(function),
        handler_marks.module_of(function),
        handler_marks.name_of(function),
        handler_marks.is_stateless(function),
        handler_marks.is_nolocking(function),
        handler_marks.batch_of(function),
        function if middleware is None else middleware.around(function, takes_list=True),
        handler_marks.retry_of(function),
        handler_marks.timeout_of(function),
        limits_of(function),
        _most_timeouts(function),
        handler_marks.is_async(function),
        getattr(function, handler_marks.KEEP, None),
    )


def _most_timeouts(function: Handler) -> int:
    """After how many failures a death by the handler's own time limit is the last one; 0: it does not say.

    The death of a `@batch` charges messages that had no part in it, so that it never does.
    """
    terms = handler_marks.retry_of(function)
    if terms is None or handler_marks.timeout_of(function) is None or handler_marks.batch_of(function):
        return 0
    return terms.max_attempts or 0


def one_by_one(function: Handler, middleware: Middleware | None = None) -> Handler:
    """Make a function that takes one message, of a `@batch` function too, with the middleware around it.

    Messages come one at a time in tests, in `Router.deliver`, and where several handlers match a message.
    """
    if handler_marks.batch_of(function) is None:
        return function if middleware is None else middleware.around(function)

    @functools.wraps(function)
    def alone(message: Any, **captures: Any) -> object:
        message.captures = captures
        returned = function([message])
        return result_later(message, returned) if isawaitable(returned) else result(message, returned)

    async def result_later(message: object, returned: Awaitable[object]) -> object:
        return result(message, await returned)

    def result(message: object, returned: object) -> object:
        [said] = result_of_each(function, [message], returned)
        if isinstance(said, BaseException):
            raise said
        return said

    return alone if middleware is None else middleware.around(alone)
