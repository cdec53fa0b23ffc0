"""What a handler's return value means, and whether it has run at all: every result is read here."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from types import FunctionType
from typing import Final, NamedTuple

from maildefer.errors import HandlerNotRun
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
    `TypeError`. From any, what only stands for its work is `HandlerNotRun`.
    """
    if result is None:
        return None
    ensure_run(function, result)
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


def ensure_run(function: Handler, result: object) -> None:
    """Raise `HandlerNotRun` where the result is an awaitable, a generator, or a collection with one in it.

    Whatever decorators stand above `function`, it shows here that its body has not run. What has not begun is closed,
    so that Python warns of nothing.
    """
    if isinstance(result, _DONE):
        return
    members = [result]
    if isinstance(result, list | tuple | set | frozenset):
        members += result
    elif isinstance(result, Mapping):
        members += result.values()
    undone = [(what, one) for one in members if (what := _undone(one)) is not None]
    for _, one in undone:
        _close(one)
    if undone:
        raise HandlerNotRun(marks.full_name(function), undone[0][0])


_DONE: Final = (FunctionType, str, bytes, int, float)


def _undone(one: object) -> str | None:
    if isinstance(one, Coroutine):
        return "a coroutine"
    if isinstance(one, Generator | AsyncGenerator):
        return "a generator"
    if hasattr(type(one), "__await__"):
        return f"an awaitable ({type(one).__name__})"
    if type(one).__module__ == "contextlib" and hasattr(one, "gen"):
        return "a context manager"  # by contextlib's decorators: a generator again
    return None


def _close(one: object) -> None:
    """End what has not begun. What an event loop has taken over already is left to it."""
    suspended = one if isinstance(one, Coroutine) else getattr(one, "gen", one)
    if isinstance(suspended, Coroutine | Generator):
        try:
            suspended.close()
        except Exception:  # noqa: BLE001, S110  # of its own `finally`: that it has not run is told anyway
            pass


def handoff_in(text: str) -> Handoff | None:
    """`"module.FUNCTION"`, dotted names and nothing else, taken apart."""
    found = _HANDOFF.fullmatch(text)
    return Handoff(found[1][:-1], found[2]) if found else None
