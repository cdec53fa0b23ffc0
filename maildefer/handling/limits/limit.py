"""A limit as a value: so many at a time, or so many starts in a period, for each value of its key."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from maildefer.handling import handler_marks
from maildefer.units import span

MOST_AT_A_TIME: Final = 1000
MOST_STARTS: Final = 5000  # each is a file on the mount
_LONGEST_KEY: Final = 200  # characters of it in the log
_RATE: Final = re.compile(r"\s*([0-9]{1,9})\s*/\s*([0-9]{1,9}(?:\.[0-9]{1,3})?)?\s*([a-z]+)\s*\Z")
_UNITS: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
_SHORTEST_SECONDS, _LONGEST_SECONDS = 1.0, 31 * 86400.0

Key = str | Callable[..., Any] | None


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` at a time; with `period_seconds`, at most `count` starts in any such period; or see `closes`.

    `key` names a capture of the route, or a parameter of the task; or is called with what the handler gets.
    """

    count: int
    period_seconds: float | None = None
    key: Key = None
    label: str = ""  # tells it from other limits of its function
    closes: bool = False  # none at all, while what `label` or the key's value names is down; `count` is 0
    # Gives the limits of each message, in place of this one.
    choose: Callable[[Any], Sequence[LimitUse]] | None = None

    def __str__(self) -> str:
        if self.choose is not None:
            return "by destination"
        if self.closes:
            return f"while {self.label} answers" if self.key is None else "its share of a worker"
        if self.period_seconds is None:
            text = f"{self.count} at a time"
        else:
            text = f"{self.count} in {span(self.period_seconds)}"
        if self.key is None:
            return text
        return f"{text} by {self.key if isinstance(self.key, str) else getattr(self.key, '__name__', 'a function')}"


@dataclass(frozen=True, slots=True)
class LimitUse:
    """A limit for one message: its handler, and the value of its key."""

    limit: Limit
    handler: str
    key: str = ""

    @property
    def name(self) -> str:
        """What all hosts know it by."""
        return f"{self.handler}\0{self.limit.label}\0{self.key}"

    @property
    def destination(self) -> str:
        """What is down where the limit `closes`."""
        return self.key or self.limit.label

    @property
    def shown_key(self) -> str | None:
        return None if self.limit.key is None else self.key[:_LONGEST_KEY]


def limits_of(function: object) -> tuple[Limit, ...]:
    """What `@concurrency` and `@rate` say of the function."""
    return getattr(function, handler_marks.LIMITS, ())


def at_a_time(count: object, key: Key) -> Limit:
    """The limit of `@concurrency`. Raises ValueError, TypeError."""
    if type(count) is not int or not 1 <= count <= MOST_AT_A_TIME:
        raise ValueError(f"{count!r} at a time: give a number from 1 to {MOST_AT_A_TIME}")
    return Limit(count, None, _checked(key))


def in_a_period(text: object, key: Key) -> Limit:
    """The limit of `@rate`, of a text such as `30/min`, `5/s`, `1000/h` or `10/30s`. Raises ValueError, TypeError."""
    found = _RATE.match(text) if isinstance(text, str) else None
    if found is None or found[3] not in _UNITS:
        raise ValueError(
            f"{text!r} is no rate: give a number and a time, such as 30/min, 5/s, 1000/h or 10/30s"
        )
    count, period = int(found[1]), float(found[2] or 1) * _UNITS[found[3]]
    if not 1 <= count <= MOST_STARTS:
        raise ValueError(f"{text!r}: give a number from 1 to {MOST_STARTS}, for a shorter time if it is more")
    if not _SHORTEST_SECONDS <= period <= _LONGEST_SECONDS:
        raise ValueError(f"{text!r}: give a time from a second to 31 days")
    return Limit(count, period, _checked(key))


def _checked(key: Key) -> Key:
    if key is None or callable(key) or (isinstance(key, str) and key.isidentifier()):
        return key
    raise TypeError(
        f"key={key!r}: give the name of a capture or a parameter, or a function of what the handler gets"
    )
