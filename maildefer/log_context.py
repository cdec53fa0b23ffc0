"""The attempt to which a handler's line of the log belongs.

Its six facts are read when a line is written, since most messages are handled without one. Values that a handler binds
by `contextvars`, also by structlog, end with its message.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Final, ParamSpec, TypeVar

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")

FIELDS: Final = ("key", "queue", "handler", "attempt", "sender", "recipient")
OF_BATCHES: Final = ("keys", "messages")
_MOST_KEYS: Final = 20  # of a batch of a thousand; the line of each attempt has its own

# A message, or the messages of a batch, and the handler's name.
About = tuple[Any, str]
_about: Final[ContextVar[About | None]] = ContextVar("maildefer_attempt", default=None)
_latest: About | None = None  # of the whole process
_isolated = False
_variables = 0  # bound before the first attempt

bound: Callable[[dict[str, object]], object] | None = None
"""Called with the facts of each attempt; set where an application's own chain of processors needs them bound."""

ended: Callable[[], object] | None = None
"""Called at the end of each attempt, while `facts` still returns its facts."""

in_hand: Final[list[Callable[[], int]]] = []
"""For each receiver of this process: how many messages it handles at this moment."""


queue_names: Final[dict[str | None, str]] = {}
"""The names of queues in other lines of this process's receivers, by the queues' paths."""


def isolate() -> None:
    """Run each attempt of this process in a context of its own from now on: for threads, and for bound values."""
    global _isolated
    _isolated = True


def begin_process() -> None:
    """Note which values the loaded application has bound, so that they stay after each attempt."""
    global _variables
    _variables = len(copy_context())


def run_handlers(handlers: Callable[[A], T], argument: A) -> T:
    """Call the function that runs the handlers of one message; values that they bind end with it.

    A context costs 3 µs a message, with cold caches. A process that handles one message at a time has none, until a
    handler has bound a value.
    """
    global _latest
    try:
        return copy_context().run(handlers, argument) if _isolated else handlers(argument)
    finally:
        if ended is not None:
            ended()
        _latest = None
        if not _isolated and len(copy_context()) > _variables:
            _clear()


async def await_handlers(handlers: Coroutine[Any, Any, T]) -> T:
    """As `run_handlers`, for one message among others on a loop, whose task has a context of its own."""
    global _latest
    isolate()
    try:
        return await handlers
    finally:
        if ended is not None:
            ended()
        _latest = None


def _clear() -> None:
    """Remove bound values; each further attempt has a context of its own."""
    isolate()
    if (structlog := sys.modules.get("structlog")) is not None:
        structlog.contextvars.clear_contextvars()


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """Make each call of the function run as by `run_handlers`, in any thread."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        isolate()
        return run_handlers(lambda given: function(*given, **named), arguments)

    return call


def begin_handler(message: Any, handler: str) -> None:
    """Lines from now on are about this message, or these messages of a batch, in this handler.

    Only within `run_handlers`.
    """
    global _latest
    _latest = about = (message, handler)
    if _isolated:
        _about.set(about)
    if bound is not None:
        bound(facts())


def current() -> About | None:
    """The attempt that runs in this thread; None outside of handlers.

    A thread that a handler has started has no context of its own: its lines belong to the message that is handled, if
    the process handles only one.
    """
    about = _about.get() or _latest
    return None if about is not _about.get() and sum(count() for count in in_hand) > 1 else about


def facts() -> dict[str, object]:
    """The facts for a line that is written now; empty outside of handlers."""
    about = current()
    if about is None:
        return {}
    message, handler = about
    return _facts_of_all(message, handler) if isinstance(message, list) else _facts(message, handler)


def _facts(message: Any, handler: str) -> dict[str, object]:
    return {
        "key": getattr(message, "key", None),
        "queue": queue_names.get(queue := getattr(message, "queue", None), queue),
        "handler": handler,
        "attempt": getattr(message, "attempt", None),
        "sender": _known(message, "From"),
        "recipient": _known(message, "To"),
    }


def _facts_of_all(messages: list[Any], handler: str) -> dict[str, object]:
    """The facts of a batch: the keys of its messages, and the facts that all have in common."""
    each = [_facts(message, handler) for message in messages]
    facts = {name: each[0][name] for name in FIELDS if all(one[name] == each[0][name] for one in each)}
    if len(each) > 1:
        facts |= {"keys": " ".join(str(one["key"]) for one in each[:_MOST_KEYS]), "messages": len(each)}
    return facts


def _known(message: Any, name: str) -> object:
    """An address of the message, if its headers need not be parsed for it."""
    try:
        return object.__getattribute__(message, name)
    except AttributeError:
        return None
