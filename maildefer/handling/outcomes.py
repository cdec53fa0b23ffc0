"""What an attempt at a message ended in, as values; settled in one place, the worker's loop.

A handler speaks in return values and exceptions (`Defer`, `Reject`, anything else); the dispatcher turns them into
one of the outcomes below. Several handlers can match one message: the worst of their outcomes counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

LONGEST_REASON: Final = 2000  # characters, of what is shown in a line


class Defer(Exception):
    """Raised by a handler: not now, try again `after` seconds, or `at` a time, or by the usual backoff without either.

    With `after` or `at` no age ends that: the message comes again as often as the handler says so, up to `until`, when
    it is tried once more, if there is one. By the backoff it ends with the lifetime, or at `until` instead. Raises
    ValueError for seconds that never come, for `after` together with `at`, and for times without a time zone.
    Of a long reason the beginning is kept; bytes are taken for UTF-8.
    """

    def __init__(
        self,
        reason: str | None = None,
        after: float | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        if after is not None and not (isinstance(after, int | float) and 0 <= after < float("inf")):
            raise ValueError(f"Defer(after={after!r}): give seconds, zero or more")
        if after is not None and at is not None:
            raise ValueError(f"Defer(after={after}, at={at}): give one of them")
        _must_be_aware("at", at)
        _must_be_aware("until", until)
        self.reason = _said(reason, "deferred by the handler")
        super().__init__(self.reason)
        self.after = after
        self.at = at
        self.until = until


def _must_be_aware(name: str, given: object) -> None:
    if given is None:
        return
    if not isinstance(given, datetime) or given.utcoffset() is None:
        raise ValueError(
            f"Defer({name}={given}): give a time with its zone, such as datetime.now(UTC) + timedelta(days=1)"
        )


class Reject(Exception):
    """Raised by a handler: never. The entry is buried, and can be looked at and requeued from there.

    Of a long reason the beginning is kept; bytes are taken for UTF-8.
    """

    def __init__(self, reason: str | None = None) -> None:
        self.reason = _said(reason, "rejected by the handler")
        super().__init__(self.reason)


def _said(reason: object, otherwise: str) -> str:
    """A handler may give anything."""
    given = otherwise if reason is None else reason
    said = given.decode("utf-8", "backslashreplace") if isinstance(given, bytes) else str(given)
    return said if len(said) <= LONGEST_REASON else said[: LONGEST_REASON - 1] + "…"


@dataclass(frozen=True, slots=True)
class Acked:
    """Done: the entry goes."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """Later: when the handler asked for it, or by the retry policy, which may also give up and bury.

    `at` and `until` are unix seconds.
    `error` is None where the handler asked for it (`Defer`, a 4yz reply), else the type and text of its exception,
    with the traceback in `detail`, the module of the failed handler in `module` and the exception in `fault`.
    """

    reason: str
    after_seconds: float | None = None
    error: str | None = None
    detail: str | None = None
    module: str | None = None
    at: float | None = None
    until: float | None = None
    fault: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Buried:
    """Never: to the dead letters, with the reason."""

    reason: str
    error: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class HandedOff:
    """On to the queue that lists `module`; `queue` is its path as the settings name it, None if not looked up."""

    module: str
    function: str
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Postponed:
    """Not begun, and so not charged: its conversation is in other hands, or its state can't be read."""

    seconds: float
    reason: str


Outcome = Acked | Deferred | Buried | HandedOff | Postponed

ACKED: Final = Acked()
NO_ROUTE: Final = "no route"


def severity(outcome: Outcome) -> int:
    """The order of the design: reject, exception, defer, handoff, ack.

    A postponement stands above all: nothing was run, so there is nothing else to settle.
    """
    match outcome:
        case Postponed():
            return 5
        case Buried():
            return 4
        case Deferred(error=None):
            return 2
        case Deferred():
            return 3
        case HandedOff():
            return 1
        case Acked():
            return 0


def worst(first: Outcome, second: Outcome) -> Outcome:
    """The outcome that counts for both; of equals, the first."""
    return second if severity(second) > severity(first) else first
