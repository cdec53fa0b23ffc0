"""The marks that decorators write on a handler function, and the part of a message that routing needs.

The marks are plain attributes, so that `functools.wraps` carries them to a wrapper and the function stays itself.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

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


class BatchTerms(NamedTuple):
    """The most messages that a `@batch` function takes, and how long the first of them waits for the others."""

    limit: int
    linger_seconds: float


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
