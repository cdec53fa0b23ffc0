"""The marks that decorators write on a handler function, and the part of a message that routing needs.

The marks are plain attributes, so that `functools.wraps` carries them to a wrapper and the function stays itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from maildefer.units import seconds_of

if TYPE_CHECKING:
    from maildefer.handling.periodic.table import PeriodicTask

Handler = Callable[..., object]

FIRST_STATE: Final = "START"
ERROR_STATE: Final = "ERROR"

MOST_MESSAGES: Final = 1000  # in one call of a `@batch` function
LONGEST_LINGER_SECONDS: Final = 3600.0

_ROUTES: Final = "_maildefer_routes"
_REGISTERED: Final = "_maildefer_registered"
_STATELESS: Final = "_maildefer_stateless"
_NOLOCKING: Final = "_maildefer_nolocking"
_BATCH: Final = "_maildefer_batch"
_ONE: Final = "_maildefer_one"
_KEPT: Final = "_maildefer_kept"
_FAULTS: Final = "_maildefer_faults"
_SCHEDULED: Final = "_maildefer_scheduled"
_RAISED_BY: Final = "_maildefer_raised_by"
RETRY: Final = "_maildefer_retry"
TIMEOUT: Final = "_maildefer_timeout"
LIMITS: Final = "_maildefer_limits"
KEEP: Final = "_maildefer_keep"
_TASK: Final = "_maildefer_task"
_HANDLER: Final = "_maildefer_handler"
MOST_DECORATORS: Final = 100  # what is wrapped in itself has no end


class BatchTerms(NamedTuple):
    """The most messages that a `@batch` function takes, how long the first of them waits, and which calls may overlap.

    Calls do not overlap on a host, unless with `overlap`; with `exclusive`, not in the whole cluster either.
    """

    limit: int
    linger_seconds: float
    overlap: bool = False
    exclusive: bool = False


class RetryTerms(NamedTuple):
    """The parts of the retry policy that a `@retry` replaces, named as in `RetryPolicy`; None: it leaves them alone."""

    max_attempts: int | None = None
    first_seconds: float | None = None
    cap_seconds: float | None = None
    lifetime_seconds: float | None = None

    @classmethod
    def of(cls, attempts: object, backoff: object, lifetime: object) -> RetryTerms:
        """The terms that the arguments of a `@retry` mean. Raises ValueError."""
        if attempts is not None and (type(attempts) is not int or attempts < 1):
            raise ValueError(f"attempts={attempts!r}: give a number from 1")
        pair = backoff if isinstance(backoff, tuple | list) else (backoff, backoff)
        first, longest = (None, None)
        if backoff is not None:
            pauses = [seconds_of("backoff", pause) for pause in pair]
            if len(pauses) != 2 or pauses[0] > pauses[1]:
                raise ValueError(f"backoff={backoff!r}: give one pause, or the first and the longest")
            first, longest = pauses
        age = None if lifetime is None else seconds_of("lifetime", lifetime, least=1)
        return cls(attempts, first, longest, age)


class HasRecipient(Protocol):
    """The part of a `MailRequest` that routing looks at."""

    @property
    def To(self) -> str | None: ...
    @property
    def From(self) -> str | None: ...


class ScheduledTask(Protocol):
    """A task of which calls are pushed by a schedule."""

    @property
    def periodic(self) -> PeriodicTask | None: ...
    @property
    def queue(self) -> str: ...


class HasArguments(Protocol):
    """The part of a `@task` that the keys of limits need."""

    @property
    def parameters(self) -> tuple[str, ...]: ...
    def arguments_in(self, message: Any, /) -> Mapping[str, Any]: ...


def routes_of(function: object) -> tuple[str, ...]:
    """The regular expressions of the function's routes, in the order of their registration."""
    return getattr(function, _ROUTES, ())


def is_stateless(function: object) -> bool:
    return getattr(function, _STATELESS, False)


def is_nolocking(function: object) -> bool:
    return getattr(function, _NOLOCKING, False)


def batch_of(function: object) -> BatchTerms | None:
    """The terms of a `@batch` function; None for a function that takes one message."""
    return getattr(function, _BATCH, None)


def retry_of(function: object) -> RetryTerms | None:
    return getattr(function, RETRY, None)


def timeout_of(function: object) -> float | None:
    """The function's own time limit, in seconds."""
    return getattr(function, TIMEOUT, None)


def task_of(function: object) -> HasArguments | None:
    """The task whose calls the function makes; None for any other function."""
    return getattr(function, _TASK, None)


def mark_task(function: object, task: HasArguments) -> None:
    setattr(function, _TASK, task)


def described(function: Handler) -> dict[str, object]:
    """What `maildefer routes` shows of a handler, as plain data."""
    terms = retry_of(function)
    return {
        "module": module_of(function),
        "function": name_of(function),
        "stateless": is_stateless(function),
        "async": is_async(function),
        "exclusive": (batch := batch_of(function)) is not None and batch.exclusive,
        "retry": None if terms is None else terms._asdict(),
        "timeout_seconds": timeout_of(function),
        "keep_seconds": getattr(function, KEEP, None),
        "limits": [str(limit) for limit in getattr(function, LIMITS, ())],
    }


def add_route(function: object, regex: str) -> None:
    setattr(function, _ROUTES, (*routes_of(function), regex))


def is_registered(function: object) -> bool:
    """Whether the function is registered in a router."""
    return getattr(function, _REGISTERED, False) is True


def mark_registered(function: object) -> None:
    with suppress(AttributeError, TypeError):  # methods and functions written in C keep no marks
        setattr(function, _REGISTERED, True)


def faults_of(function: object) -> tuple[str, ...]:
    """The mistakes in the function's routes, each with its file and line."""
    return getattr(function, _FAULTS, ())


def add_fault(function: object, text: str) -> None:
    setattr(function, _FAULTS, (*faults_of(function), text))


def mark_stateless(function: object) -> None:
    setattr(function, _STATELESS, True)


def mark_nolocking(function: object) -> None:
    setattr(function, _NOLOCKING, True)


def mark_batch(function: object, terms: BatchTerms) -> None:
    setattr(function, _BATCH, terms)


def mark_handled_by(function: object, handler: Handler) -> None:
    """Note the handler that calls the function, as that of a `@task` does; it has the function's policy."""
    setattr(function, _HANDLER, handler)
    for mark in (RETRY, TIMEOUT, LIMITS, KEEP):
        if hasattr(function, mark):
            setattr(handler, mark, getattr(function, mark))


def mark_policy(function: object, mark: str, value: object) -> None:
    """Mark the function, and what is registered beneath it, as the decorator may stand above the route.

    Raises AttributeError for what takes no marks.
    """
    setattr(function, mark, value)
    for layer in layers(function):
        if is_registered(layer):
            setattr(layer, mark, value)
        if (handler := getattr(layer, _HANDLER, None)) is not None:
            setattr(handler, mark, value)


def layers(function: object) -> Iterator[object]:
    """The function, then what its decorators have wrapped, from the outermost to the innermost."""
    for _ in range(MOST_DECORATORS):
        yield function
        if isinstance(function, partial):
            function = function.func
        elif isinstance(function, MethodType):
            function = function.__func__
        elif (function := getattr(function, "__wrapped__", None)) is None:
            return


def is_async(function: object) -> bool:
    """Whether a call makes a coroutine, as far as the function and what its decorators have wrapped show.

    A decorator may run that to its end, and one that hides the function may return it.
    """
    return any(map(_is_coroutine_function, layers(task_of(function) or function)))


def _is_coroutine_function(function: object) -> bool:
    call = getattr(type(function), "__call__", None)  # noqa: B004  # the method itself is wanted
    return iscoroutinefunction(function) or iscoroutinefunction(call)


def takes_one_message(function: object) -> bool:
    """Whether the function can't be given a list, since a decorator above it looks at the message."""
    return getattr(function, _ONE, False)


def mark_takes_one_message(function: object) -> None:
    setattr(function, _ONE, True)


def is_in_undeliverable_queue(fault: BaseException) -> bool:
    """Whether the message that raised the exception is in the undeliverable queue already, if there is one."""
    return getattr(fault, _KEPT, False)


def mark_in_undeliverable_queue(fault: BaseException) -> None:
    setattr(fault, _KEPT, True)


def raised_by(fault: BaseException) -> str:
    """The middleware that raised the exception; empty for a handler's."""
    middleware: str = getattr(fault, _RAISED_BY, "")
    return middleware


def mark_raised_by(fault: BaseException, middleware: str) -> None:
    with suppress(AttributeError, TypeError):  # what keeps no marks is taken for a handler's
        setattr(fault, _RAISED_BY, middleware)


def scheduled_task_of(function: object) -> ScheduledTask | None:
    """The task of which the function makes the calls, if it has a schedule; else None."""
    return getattr(function, _SCHEDULED, None)


def mark_scheduled(function: object, task: ScheduledTask) -> None:
    setattr(function, _SCHEDULED, task)


def name_of(function: Handler) -> str:
    while isinstance(function, partial) and not hasattr(function, "__name__"):
        function = function.func
    return getattr(function, "__name__", type(function).__name__)


def module_of(function: Handler) -> str:
    while isinstance(function, partial) and "__module__" not in vars(function):
        function = function.func  # else each partial would belong to functools
    return getattr(function, "__module__", None) or ""


def full_name(function: Handler) -> str:
    return f"{module_of(function)}.{name_of(function)}"


def entry_key(message: object) -> str | None:
    """The key of the entry that the message is from; None for a message that is not from a queue."""
    return getattr(message, "key", None)
