"""A handler as a dispatcher runs it: its function, and what its marks say, looked up once."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import BatchTerms, Handler
from maildefer.handling.results import result_of_each


class HandlerStep(NamedTuple):
    """`function` takes one message and its captures; with `terms`, `batch_function` takes a list of messages."""

    function: Handler
    name: str
    module: str
    state: str
    stateless: bool
    nolocking: bool
    terms: BatchTerms | None
    batch_function: Handler


def step_of(function: Handler) -> HandlerStep:
    return HandlerStep(
        one_by_one(function),
        handler_marks.full_name(function),
        handler_marks.module_of(function),
        handler_marks.name_of(function),
        handler_marks.is_stateless(function),
        handler_marks.is_nolocking(function),
        handler_marks.batch_of(function),
        function,
    )


def one_by_one(function: Handler) -> Handler:
    """A `@batch` function as one that takes a single message, by lists of one; any other function as it is.

    For where messages come one at a time: in tests, in `Router.deliver`, and beside other handlers of a message.
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
