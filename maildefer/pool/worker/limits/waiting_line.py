"""Spreads the messages of a host that wait for one limit: each gets a time of its own, as if they stood in a line.

A word of the scoreboard is the end of a line, and tells by a hash for which limit. All workers of the host write it. A
lost update, like a line that is too long or too short, costs time only: what counts is a slot. So a message comes back
about when it has one, and thousands of one limit need few attempts.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Callable

from maildefer import events
from maildefer.handling.limits.limit import LimitUse
from maildefer.handling.outcomes import Postponed
from maildefer.maildir.system import SYSTEM, System
from maildefer.pool.scoreboard import Scoreboard

_TAG_SHIFT = 40
_TIME_MASK = (1 << _TAG_SHIFT) - 1
_PROBES = 4
_FIRST_SECONDS, _LONGEST_SECONDS = 2.0, 60.0  # that a message waits for `@concurrency`, unless it is promoted
_LONGEST_RATE_SECONDS = 600.0  # for a rate, or as long again as it has waited
_LEAST_SECONDS = 0.5


def number_of(limit: str) -> int:
    """The number of a limit, as of one value of its key: 24 bits of a hash, and never 0."""
    return (crc32(limit.encode()) >> 8) | 1


class WaitingLine:
    """The lines of a host; each process has such an object."""

    def __init__(self, board: Scoreboard, *, system: System = SYSTEM) -> None:
        self._words = board.words
        self._places = board.line_words()
        self._system = system

    def join(self, limit: int, *, least_seconds: float, spacing_seconds: float) -> tuple[float, bool]:
        """For how long the next one waits, at least so many seconds; and whether it is the first of a line."""
        now = int(self._system.boottime() * 1000)
        end = now + int(least_seconds * 1000)
        place = self._place_of(limit, now)
        if place is None:
            return least_seconds, False
        word = self._words[place]
        is_first = word >> _TAG_SHIFT != limit or word & _TIME_MASK <= now
        if not is_first:
            end = max(end, (word & _TIME_MASK) + int(spacing_seconds * 1000))
        self._words[place] = limit << _TAG_SHIFT | end & _TIME_MASK
        return (end - now) / 1000, is_first

    def postponed(
        self,
        use: LimitUse,
        seconds: float | None,
        *,
        age: float,
        hosts: int,
        draw: Callable[[float, float], float],
    ) -> Postponed:
        """For how long a message of that age is postponed: the longer, the longer it has waited already.

        For a rate, until about its turn in the line of those that wait here, since it is known when slots are free;
        for `@concurrency` it is not, and the keeper promotes the oldest when a slot is released here. Where its
        destination is down, until that is tried again.
        """
        limit, number = use.limit, number_of(use.name)
        if limit.closes and seconds is not None:
            self.join(number, least_seconds=seconds, spacing_seconds=0.0)
            return Postponed(seconds, f"{use.destination} is down", limit=number)
        if limit.period_seconds is None or seconds is None:
            longest = min(max(age, _FIRST_SECONDS), _LONGEST_SECONDS)
            wait = draw(longest / 2, longest)
            _, is_first = self.join(number, least_seconds=wait, spacing_seconds=0.0)
        else:
            spacing = limit.period_seconds / limit.count * hosts
            wait, is_first = self.join(number, least_seconds=seconds, spacing_seconds=spacing)
            longest = max(age, _LONGEST_RATE_SECONDS)
            if wait > longest:  # the line is an estimate
                wait = draw(longest / 2, longest)
        if is_first:
            wait_ms, key_text = events.ms(wait), use.shown_key
            events.emit("limit.reached", handler=use.handler, limit=str(limit), key=key_text, wait_ms=wait_ms)
        which = f" for {use.shown_key}" if limit.key is not None else ""
        reason, wait = f"{use.handler} is limited to {limit}{which}", max(wait, _LEAST_SECONDS)
        has_turn = limit.period_seconds is not None and seconds is not None
        turn = self._system.boottime() + wait if has_turn else 0.0
        return Postponed(wait, reason, limit=number, turn=turn)

    def is_empty(self, limit: int) -> bool:
        """Whether nothing waits here for the limit."""
        now = int(self._system.boottime() * 1000)
        place = self._place_of(limit, now)
        return place is not None and self._words[place] & _TIME_MASK <= now

    def _place_of(self, limit: int, now: int) -> int | None:
        """The word of the limit's line; else one whose line is over; None where all are others'."""
        unused = None
        for probe in range(_PROBES):
            place = self._places[(limit + probe) % len(self._places)]
            word = self._words[place]
            if word >> _TAG_SHIFT == limit:
                return place
            if unused is None and word & _TIME_MASK <= now:
                unused = place
        return unused
