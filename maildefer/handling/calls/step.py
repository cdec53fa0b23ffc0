"""A handler with its marks looked up once, as a dispatcher runs it."""

from __future__ import annotations

import functools
from typing import Any, Final, NamedTuple

from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import BatchTerms, Handler, RetryTerms
from maildefer.handling.limits.limit import Limit, limits_of
from maildefer.handling.results import result_of_each

CALL: Final = "batch "  # what the name of a call's token begins with; a conversation's begins with a bracket
EXCLUSIVE_CALL: Final = "exclusive batch "


class HandlerStep(NamedTuple):
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

    @property
    def call_token(self) -> str:
        """The name of the token under which a `@batch` function is called; empty where none is needed."""
        if self.terms is None or self.terms.overlap:
            return ""
        return f"{EXCLUSIVE_CALL if self.terms.exclusive else CALL}{self.name}"


def step_of(function: Handler) -> HandlerStep:
    """Look up the marks of a handler."""
    return HandlerStep(
        one_by_one(function),
        handler_marks.full_name(function),
        handler_marks.module_of(function),
        handler_marks.name_of(function),
        handler_marks.is_stateless(function),
        handler_marks.is_nolocking(function),
        handler_marks.batch_of(function),
        function,
        handler_marks.retry_of(function),
        handler_marks.timeout_of(function),
        limits_of(function),
        _most_timeouts(function),
    )


def _most_timeouts(function: Handler) -> int:
    """After how many failures a death by the handler's own time limit is the last one; 0: it does not say.

    The death of a `@batch` charges messages that had no part in it, so that it never does.
    """
    terms = handler_marks.retry_of(function)
    if terms is None or handler_marks.timeout_of(function) is None or handler_marks.batch_of(function):
        return 0
    return terms.max_attempts or 0


def one_by_one(function: Handler) -> Handler:
    """Make a function that takes one message of a `@batch` function; any other function is returned as it is.

    Messages come one at a time in tests, in `Router.deliver`, and where several handlers match a message.
    """
    if handler_marks.batch_of(function) is None:
        return function

    @functools.wraps(function)
    def alone(message: Any, **captures: Any) -> object:
        message.captures = captures
        [said] = result_of_each(function, [message], function([message]))
        if isinstance(said, BaseException):
            raise said
        return said

    return alone
