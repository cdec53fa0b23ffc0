"""A handler as a dispatcher runs it: its function, and what its marks say, looked up once."""

from __future__ import annotations

from typing import NamedTuple

from maildefer.handling import marks
from maildefer.handling.batches import one_by_one
from maildefer.handling.marks import BatchTerms, Handler


class Step(NamedTuple):
    """`function` takes one message and its captures; with `terms`, `given` takes a list of messages."""

    function: Handler
    name: str
    module: str
    state: str
    stateless: bool
    nolocking: bool
    terms: BatchTerms | None
    given: Handler


def step_of(function: Handler) -> Step:
    return Step(
        one_by_one(function),
        marks.full_name(function),
        marks.module_of(function),
        marks.name_of(function),
        marks.is_stateless(function),
        marks.is_nolocking(function),
        marks.batch_of(function),
        function,
    )
