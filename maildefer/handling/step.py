"""A handler as a dispatcher runs it: its function, and what its marks say, looked up once."""

from __future__ import annotations

from typing import NamedTuple

from maildefer.handling import handler_marks
from maildefer.handling.batch import one_by_one
from maildefer.handling.handler_marks import BatchTerms, Handler


class HandlerStep(NamedTuple):
    """`function` takes one message and its captures; with `terms`, `given` takes a list of messages."""

    function: Handler
    name: str
    module: str
    state: str
    stateless: bool
    nolocking: bool
    terms: BatchTerms | None
    given: Handler


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
