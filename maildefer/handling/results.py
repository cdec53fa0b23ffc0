"""What a handler's return value means."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from maildefer.handling import marks
from maildefer.handling.marks import Handler

_HANDOFF: Final = re.compile(r"((?:[^\W\d]\w*\.)+)([^\W\d]\w*)")


class Move(NamedTuple):
    """The sender's state in `module` becomes `state`."""

    module: str
    state: str


class Handoff(NamedTuple):
    """The message goes on to a handler of another queue."""

    module: str
    function: str


def interpreted(function: Handler, result: object) -> Move | Handoff | None:
    """The meaning of what `function` returned; None where the state stays.

    A function is the next state of its own module. `"module.FUNCTION"` is a handoff, from a stateless handler too;
    everything else that one returns is ignored. From a stateful handler, anything else is its author's mistake:
    `TypeError`.
    """
    if not result:
        return None
    if isinstance(result, str):
        handoff = handoff_in(result)
        if handoff is not None:
            return handoff
    if marks.is_stateless(function):
        return None
    if callable(result) and hasattr(result, "__name__"):
        return Move(marks.module_of(result), marks.name_of(result))
    raise TypeError(
        f"{marks.full_name(function)} returned {result!r}: "
        'return the function that is the next state, "module.FUNCTION" of another queue, or nothing'
    )


def handoff_in(text: str) -> Handoff | None:
    """`"module.FUNCTION"`, dotted names and nothing else, taken apart."""
    found = _HANDOFF.fullmatch(text)
    return Handoff(found[1][:-1], found[2]) if found else None
