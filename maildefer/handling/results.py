"""The meaning of a handler's return value or exception; all results of handlers are read here.

A `@batch` function's result for all of its messages is a plain handler's: nothing, `"module.FUNCTION"`, or what it
raises. A mapping from messages to any of these says it for each message: `{message: Defer("its blog is down")}`.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterator, Mapping, Sequence
from itertools import islice
from types import FunctionType
from typing import Final, NamedTuple

from maildefer.errors import HandlerNotRun, StorageFault
from maildefer.handling import handler_marks
from maildefer.handling.handler_marks import Handler, RetryTerms
from maildefer.handling.outcomes import Buried, Defer, Deferred, DestinationDown, Outcome, Reject
from maildefer.message.smtp_error import SMTPError

_MOST_OF_A_GROUP: Final = 5
_HANDOFF: Final = re.compile(r"((?:[^\W\d]\w*\.)+)([^\W\d]\w*)")

MessageResult = BaseException | str | None
"""The result for one message of a batch: an exception as if it had been raised, or a text as if returned."""


class Move(NamedTuple):
    """The sender's state in `module` becomes `state`."""

    module: str
    state: str


class Handoff(NamedTuple):
    """The message goes on to a handler of another queue."""

    module: str
    function: str


def meaning_of(function: Handler, result: object) -> Move | Handoff | None:
    """The meaning of what `function` returned; None where the state stays.

    A function is the next state of its own module. `"module.FUNCTION"` is a handoff, from a stateless handler too.
    Other values of a stateless handler are ignored; of a stateful one they raise `TypeError`. A value that shows that
    the work was not done, such as a coroutine, raises `HandlerNotRun`.
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
    if handler_marks.is_stateless(function):
        return None
    if callable(result) and hasattr(result, "__name__") and not isinstance(result, type):
        return Move(handler_marks.module_of(result), handler_marks.name_of(result))
    raise TypeError(
        f"{handler_marks.full_name(function)} returned {result!r}: "
        'return the function that is the next state, "module.FUNCTION" of another queue, or nothing'
    )


def result_of_each(function: Handler, messages: Sequence[object], returned: object) -> list[MessageResult]:
    """The result of a `@batch` function for each message. Raises `TypeError` for a mapping of other things."""
    if not isinstance(returned, Mapping):
        following = meaning_of(function, returned)
        return [".".join(following) if isinstance(following, Handoff) else None] * len(messages)
    ensure_run(function, [said for said in returned.values() if not isinstance(said, BaseException | type)])
    given = {id(message): said for message, said in returned.items()}
    found = [given.pop(id(message), None) for message in messages]
    for said in found:
        if not (
            said is None or isinstance(said, BaseException) or (isinstance(said, str) and handoff_in(said))
        ):
            raise TypeError(
                f"{handler_marks.full_name(function)} returned {said!r} for a message: "
                'give Defer(…), Reject(…), another exception, "module.FUNCTION", or None'
            )
    if given:
        raise TypeError(
            f"{handler_marks.full_name(function)} returned a mapping with what is none of its messages: "
            "use them as its keys"
        )
    return found


def outcome_of(fault: BaseException, module: str, retry: RetryTerms | None = None) -> Outcome:
    """The outcome of a raised exception: `Defer`, `Reject`, an SMTP reply by its class, or a failure.

    In groups, as an `asyncio.TaskGroup` raises, what all ask for is the outcome: of several times the latest. What
    `message.once` could not record is the mount's fault: deferred by the backoff, and no failure.
    """
    group = _leaves(fault) if isinstance(fault, BaseExceptionGroup) else (fault,)
    try:
        asked = [_asked(one, retry) for one in group]
    except Exception as another:  # noqa: BLE001  # of a class of the project's own, that has no reason, say
        return failure(another, module, retry)
    deferred = [one for one in asked if isinstance(one, Deferred)]
    if len(deferred) == len(asked):
        return max(deferred, key=_wait)
    buried = [one.reason for one in asked if isinstance(one, Buried)]
    if len(buried) == len(asked):
        return Buried(Reject("; ".join(buried[:_MOST_OF_A_GROUP])).reason, fault=fault)
    return failure(fault, module, retry)


def _asked(fault: BaseException, retry: RetryTerms | None) -> Deferred | Buried | None:
    """The outcome that an exception asks for; None for an unexpected one."""
    if isinstance(fault, Defer):
        at, until = (None if one is None else one.timestamp() for one in (fault.at, fault.until))
        is_down = isinstance(fault, DestinationDown)
        return Deferred(fault.reason, fault.after, at=at, until=until, retry=retry, is_down=is_down)
    if isinstance(fault, Reject):
        return Buried(fault.reason, fault=fault)
    if isinstance(fault, SMTPError):
        if 400 <= fault.code < 500:
            return Deferred(str(fault), retry=retry)
        if 500 <= fault.code < 600:
            return Buried(str(fault), fault=fault)
    if isinstance(fault, StorageFault) and not fault.is_charged:
        return Deferred(str(fault), retry=retry)
    return None


def _wait(one: Deferred) -> float:
    """About how many seconds it asks for, to compare it with others."""
    if one.at is not None:
        return one.at - time.time()
    return 1.0 if one.after_seconds is None else one.after_seconds  # by the backoff: longer than at once


def failure(fault: BaseException, module: str | None, retry: RetryTerms | None = None) -> Deferred:
    """The outcome of an unexpected exception: deferred by the backoff, with its traceback for the log."""
    import traceback  # needed only here, and not by an idle pool

    text = "".join(traceback.format_exception_only(fault)).strip()
    if isinstance(fault, BaseExceptionGroup):
        leaves = ("".join(traceback.format_exception_only(one)).strip() for one in _leaves(fault))
        text = "; ".join((text, *islice(leaves, _MOST_OF_A_GROUP)))
    if middleware := handler_marks.raised_by(fault):
        text = f"middleware {middleware}: {text}"
    detail = "".join(traceback.format_exception(fault))
    return Deferred(text, error=text, detail=detail, module=module, fault=fault, retry=retry)


def _leaves(group: BaseExceptionGroup) -> Iterator[BaseException]:
    """The exceptions in a group and in the groups in it."""
    waiting: deque[BaseException] = deque(group.exceptions)
    while waiting:
        one = waiting.popleft()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        else:
            yield one


def ensure_run(function: Handler, result: object) -> None:
    """Raise `HandlerNotRun` if the result is a coroutine or the like, an exception, or a collection that holds one.

    This finds, whatever decorators stand above `function`, that its body has not run. Coroutines and generators are
    closed, so that Python does not warn of them. Other values are ignored, as in Salmon.
    """
    if isinstance(result, _PLAIN) or handler_marks.is_registered(result):
        return
    undone = [(what, one) for one in _members(result) if (what := _work_not_done(one)) is not None]
    for _, one in undone:
        _close(one)
    if undone:
        raise HandlerNotRun(handler_marks.full_name(function), undone[0][0])


_PLAIN: Final = (str, bytes, int, float)
_MOST_LEVELS: Final = 16
_MOST_MEMBERS: Final = 10_000
_NOT_DONE: Final = "and nobody runs it, so the work is not done"


def _members(result: object) -> Iterator[object]:
    """The result and the members of collections in it, up to a depth and a number: a collection may hold itself."""
    waiting = deque([(result, 0)])
    for _ in range(_MOST_MEMBERS):
        if not waiting:
            return
        one, level = waiting.popleft()
        yield one
        if isinstance(one, Mapping):
            one = tuple(one.values())
        if isinstance(one, list | tuple | set | frozenset | deque) and level < _MOST_LEVELS:
            room = _MOST_MEMBERS - len(waiting)
            waiting.extend((member, level + 1) for member, _ in zip(one, range(room), strict=False))


def _work_not_done(one: object) -> str | None:
    """The kind of unfinished work that `one` is, and what to do about it; None for a plain value."""
    if one is None or isinstance(one, _PLAIN):
        return None
    kind = type(one)
    if isinstance(one, BaseException) or (isinstance(one, type) and issubclass(one, BaseException)):
        name = one.__name__ if isinstance(one, type) else kind.__name__
        return (
            f"{name}, and raised nothing: write `raise {name}(…)`; "
            "only a @batch may return exceptions, in a mapping from its messages"
        )
    if isinstance(one, Coroutine):
        return f"a coroutine, {_NOT_DONE}: await it in there, or run it, as asyncio.run(…) does"
    run_it = f"{_NOT_DONE}: make it a plain function, or run it in there"
    if isinstance(one, Generator | AsyncGenerator):
        return f"a generator, {run_it}"
    if hasattr(kind, "__await__"):
        return f"an awaitable ({kind.__name__}), {run_it}"
    if kind.__module__ == "contextlib" and hasattr(one, "gen"):
        return f"a context manager, {run_it}"  # by contextlib's decorators: a generator again
    if hasattr(kind, "add_done_callback"):
        return f"a {kind.__name__}, and nobody waits for it: wait in there, as `.result()` does"
    if hasattr(kind, "__next__"):
        return f"an iterator ({kind.__name__}), {_NOT_DONE}: go through it in there, as a `for` does"
    if callable(one) and not _is_handler(one):
        return (
            f"the callable {handler_marks.full_name(one)}, which is no handler, {_NOT_DONE}: "
            "call it in there, or return a function with a @route"
        )
    return None


def _is_handler(one: object) -> bool:
    """Whether it is, or may be meant as, a handler: a function of a module is a state, and a class is a value."""
    if isinstance(one, FunctionType) and one.__qualname__.isidentifier():
        return True
    return isinstance(one, type) or handler_marks.is_registered(one)


def _close(one: object) -> None:
    """Close a coroutine or generator that has not begun; what an event loop runs already is left to it."""
    suspended = one if isinstance(one, Coroutine) else getattr(one, "gen", one)
    if isinstance(suspended, Coroutine | Generator):
        try:
            suspended.close()
        except Exception:  # noqa: BLE001, S110  # raised in its own `finally`; that it has not run is reported anyway
            pass


def handoff_in(text: str) -> Handoff | None:
    """The handoff that a text means: `"module.FUNCTION"`, dotted names and nothing else; None for any other text."""
    found = _HANDOFF.fullmatch(text)
    return Handoff(found[1][:-1], found[2]) if found else None
