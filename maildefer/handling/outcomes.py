"""The outcomes of an attempt at a message, as values; the worker's loop settles them in one place.

The dispatcher makes one of the outcomes below from what a handler returns or raises (`Defer`, `Reject`, any other
exception). Several handlers can match one message: the worst of their outcomes counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from maildefer.handling.handler_marks import RetryTerms

LONGEST_REASON: Final = 2000  # characters; a reason is shown in one line


class Defer(Exception):
    """Raised by a handler: try the message again `after` seconds, or `at` a time; without either, by the backoff.

    With `after` or `at`, the age of the message does not matter: it comes again as often as the handler asks, up to
    `until`, when it is tried once more. By the backoff it ends with the lifetime, or at `until` instead. Raises
    ValueError for seconds that never come, for `after` together with `at`, and for times without a time zone; TypeError
    for a reason that is a number or a span of time. Of a long reason the beginning is kept; bytes are taken for UTF-8.
    """

    def __init__(
        self,
        reason: str | None = None,
        after: float | None = None,
        *,
        at: datetime | None = None,
        until: datetime | None = None,
    ) -> None:
        if isinstance(reason, int | float | timedelta):
            raise TypeError(f"Defer({reason!r}): the reason comes first: write Defer(after=…) for seconds")
        if after is not None and not (isinstance(after, int | float) and 0 <= after < float("inf")):
            raise ValueError(f"Defer(after={after!r}): give seconds, zero or more")
        if after is not None and at is not None:
            raise ValueError(f"Defer(after={after}, at={at}): give one of them")
        _must_be_aware("at", at)
        _must_be_aware("until", until)
        self.reason = _reason_text(reason, "deferred by the handler")
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


class DestinationDown(Defer):
    """Raised by a handler: nothing could be sent, since no server of the destination could be reached.

    In a pool, what is limited by the destination waits until it answers, uncharged, and one message at a time tries it;
    elsewhere this is a `Defer`.
    """


class Reject(Exception):
    """Raised by a handler: bury the entry. It can be shown and requeued from the dead letters.

    Of a long reason the beginning is kept; bytes are taken for UTF-8.
    """

    is_untried = False
    """Whether its destination was not asked, so that nothing is known of that."""

    def __init__(self, reason: str | None = None) -> None:
        self.reason = _reason_text(reason, "rejected by the handler")
        super().__init__(self.reason)


def _reason_text(reason: object, otherwise: str) -> str:
    """The reason as a text of limited length, whatever the handler has given."""
    given = otherwise if reason is None else reason
    text = given.decode("utf-8", "backslashreplace") if isinstance(given, bytes) else str(given)
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


@dataclass(frozen=True, slots=True)
class Acked:
    """The message is done: the entry is removed."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The message is tried again: when the handler asked for it, or by the retry policy, which may bury it instead.

    `at` and `until` are unix seconds.
    `error` is None where the handler asked for it (`Defer`, a 4yz reply), else the type and text of its exception,
    with the traceback in `detail`, the module of the failed handler in `module` and the exception in `fault`. `retry`
    is what that handler's `@retry` says. `is_down`: no server of its destination could be reached.
    """

    reason: str
    after_seconds: float | None = None
    error: str | None = None
    detail: str | None = None
    module: str | None = None
    at: float | None = None
    until: float | None = None
    fault: BaseException | None = field(default=None, compare=False, repr=False)
    retry: RetryTerms | None = None
    is_down: bool = False


@dataclass(frozen=True, slots=True)
class Buried:
    """The entry goes to the dead letters, with the reason."""

    reason: str
    error: str | None = None
    detail: str | None = None
    begun: bool = True  # else the claim was no attempt, and is not counted as one
    # What the handler has raised.
    fault: BaseException | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class HandedOff:
    """The entry moves to the queue that lists `module`; `queue` is its path in the settings, None if not looked up."""

    module: str
    function: str
    queue: str | None = None


@dataclass(frozen=True, slots=True)
class Postponed:
    """The attempt did not begin, and is not charged: another worker has the conversation, or a state can't be read.

    With `limit`, its number, a limit is reached: there may be thousands of these, and the log tells once of all, but
    for those that were `tried`, whose destination is down. With `turn`, on the boot clock, this host promotes the entry
    then, while its due time is in whole seconds.
    """

    seconds: float
    reason: str
    limit: int = 0
    turn: float = 0.0
    tried: bool = False


Outcome = Acked | Deferred | Buried | HandedOff | Postponed

ACKED: Final = Acked()
NO_ROUTE: Final = "no route"


def word_of(outcome: Outcome) -> str:
    """The outcome in the word that the log and the metrics have for it."""
    return "handed_off" if isinstance(outcome, HandedOff) else type(outcome).__name__.lower()


def severity(outcome: Outcome) -> int:
    """The rank of an outcome: ack, handoff, defer, exception, reject, and above all a postponement.

    After a postponement nothing has run, so there is nothing else to settle.
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


def no_handler_text(known: str, states: Mapping[str, str]) -> str:
    """What to do where none of the handlers that match is the state that the sender is in."""
    found = ", ".join(f"{module}.{state}" for module, state in states.items())
    return (
        f"its routes match {known}, but the sender is in the state {found}: "
        "write that function, give it such a route, or move the sender by `Router.set_state`"
    )
