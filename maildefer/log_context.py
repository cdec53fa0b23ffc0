"""What a line of the log is about: the attempt whose handlers write it.

Its six facts are read when a line is written, and not before: most messages are handled without one. What a handler
binds by `contextvars`, structlog's included, is gone with its message.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Final, ParamSpec, TypeVar

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
"""Also told the facts of each attempt: set where an application's own chain of processors is to find them bound."""

ended: Callable[[], object] | None = None
"""Called at the end of each attempt, while `facts` still tells what it was about."""

in_hand: Final[list[Callable[[], int]]] = []
"""Of the receivers of this process, which handle several messages at a time: how many those are."""


queue_names: Final[dict[str | None, str]] = {}
"""How the receivers of this process call their queues in other lines, by the queues' paths."""


def isolate() -> None:
    """Have each attempt of this process in a context of its own from now on: for threads, and for what is bound."""
    global _isolated
    _isolated = True


def begin_process() -> None:
    """The application is loaded: what it has bound so far is not an attempt's."""
    global _variables
    _variables = len(copy_context())


def run_handlers(handlers: Callable[..., T], *arguments: Any) -> T:
    """Call what runs the handlers of one message; what they bind ends with it.

    A context costs 3 µs a message, cold caches and all. A process that handles one at a time does without, until a
    handler has bound something.
    """
    global _latest
    try:
        return copy_context().run(handlers, *arguments) if _isolated else handlers(*arguments)
    finally:
        if ended is not None:
            ended()
        _latest = None
        if not _isolated and len(copy_context()) > _variables:
            _clear()


def _clear() -> None:
    """For once; the next attempt has a context of its own."""
    isolate()
    if (structlog := sys.modules.get("structlog")) is not None:
        structlog.contextvars.clear_contextvars()


def contained(function: Callable[P, T]) -> Callable[P, T]:
    """Have each call of the function run as by `run_handlers`, in whatever thread."""

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        isolate()
        return run_handlers(functools.partial(function, *arguments, **named))

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
    """The attempt that is made here and now; None where no handler is at work.

    A thread that a handler has started has no context of its handler's: it is at the message in hand, as long as this
    process has one only.
    """
    about = _about.get() or _latest
    return None if about is not _about.get() and sum(count() for count in in_hand) > 1 else about


def facts() -> dict[str, object]:
    """What a line written here and now is about; empty where no handler is at work."""
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
    """Of a batch: the keys of its messages, and whatever else they have in common."""
    each = [_facts(message, handler) for message in messages]
    facts = {name: each[0][name] for name in FIELDS if all(one[name] == each[0][name] for one in each)}
    if len(each) > 1:
        facts |= {"keys": " ".join(str(one["key"]) for one in each[:_MOST_KEYS]), "messages": len(each)}
    return facts


def _known(message: Any, name: str) -> object:
    """An address that the message has; not one for which its headers would have to be parsed first."""
    try:
        return object.__getattribute__(message, name)
    except AttributeError:
        return None
