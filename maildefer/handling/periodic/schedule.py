"""Schedules: intervals and cron lines as instants, in whole Unix seconds.

An interval's instants are its multiples since 1970, so that all hosts agree on them and a restart moves none.
A cron line has five fields and a zone. A local time that is skipped, when clocks are set forward, is taken as the next
instant there is; one that is repeated, when they are set back, as its first. A line with `*` in its minutes or hours
goes by the time that passes, as in Debian's cron.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from maildefer.units import span

if TYPE_CHECKING:
    from datetime import tzinfo

CatchUp = Literal["last", "all", "none"]

MOST_MISSED: Final = 100  # instants that are made up for
LONGEST_SECONDS: Final = 365 * 86400  # of an interval
_DAY: Final = 86400
_SPANS: Final = (3600, _DAY, 31 * _DAY, 366 * _DAY)  # to look back for the last instants of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Every so many seconds, or by a cron line in a zone."""

    every_seconds: int = 0
    cron: str = ""
    zone: str = "UTC"

    def __str__(self) -> str:
        return self.cron or f"every {span(self.every_seconds)}"

    def check(self, now: int) -> None:
        """Raise ValueError for a line that is none or never comes, and for an unknown zone."""
        # The library takes seconds too, and treats these lines otherwise.
        if not self.every_seconds and len(self.cron.split()) != 5:
            raise ValueError(
                f"cron={self.cron!r}: give five fields, such as '15 3 * * *'; every='10s' is for seconds"
            )
        if self.next_after(now) is None:
            raise ValueError(f"cron={self.cron!r} never comes: there is no such day")

    def next_after(self, instant: int) -> int | None:
        """Return the first instant later than that; None where none comes. Raises ValueError."""
        return next(self._all_after(instant), None)

    def newest(self, after: int, until: int) -> list[int]:
        """Return the last instants, 100 at most, after `after` and until `until`. Raises ValueError."""
        if not self.cron:
            first = after - after % self.every_seconds + self.every_seconds
            return list(range(first, until + 1, self.every_seconds)[-MOST_MISSED:])
        found: deque[int] = deque(maxlen=MOST_MISSED)
        for seconds in (*_SPANS, until - after):
            start = max(after, until - seconds)
            found.clear()
            for instant in self._all_after(start):
                if instant > until:
                    break
                found.append(instant)
            if start == after or len(found) == MOST_MISSED:
                break
        return list(found)

    def _all_after(self, instant: int) -> Iterator[int]:
        if not self.cron:
            while True:
                instant += self.every_seconds - instant % self.every_seconds
                yield instant
        # Loaded only in a process that reads a line.
        from datetime import datetime

        from cronsim import CronSim, CronSimError

        try:
            moments = CronSim(self.cron, datetime.fromtimestamp(instant, self._tz()))
        except CronSimError as fault:
            why = "a day of the month that is none, or never comes" if "day-of-month" in str(fault) else fault
            raise ValueError(f"cron={self.cron!r}: {why}: give five fields, such as '15 3 * * *'") from fault
        for moment in moments:
            found = int(moment.timestamp())
            if found > instant:  # else of the first of two repeated hours, and we began in the second
                instant = found
                yield found

    def _tz(self) -> tzinfo:
        from datetime import UTC
        from zoneinfo import ZoneInfo

        if self.zone == "UTC":
            return UTC  # also where the system has no zones
        try:
            return ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError) as fault:
            raise ValueError(
                f"tz={self.zone!r} is no zone that this host knows: give a name such as 'Europe/Berlin', "
                "and install tzdata (the system's package, or the one of PyPI) where it is missing"
            ) from fault


def to_make(
    schedule: Schedule,
    catch_up: CatchUp,
    *,
    cursor: int,
    now: float,
    watched_since: float,
    grace_seconds: float,
) -> list[int]:
    """Return the instants to push calls for, after the last that a call was pushed for.

    Those that passed before this keeper watched, or longer ago than `grace_seconds`, were missed: `catch_up` says
    whether the last of them is made up for, all of them (100 at most), or none. Where any were missed while it watched,
    nothing could be pushed for so long, and the instants since then were missed like them. Raises ValueError.
    """
    found = schedule.newest(cursor, int(now))
    in_time = [one for one in found if one > watched_since and one >= now - grace_seconds]
    missed = found[: len(found) - len(in_time)]
    if missed and missed[-1] > watched_since and in_time:
        missed, in_time = [], in_time[-1:]
    match catch_up:
        case "all":
            return found
        case "last":
            return missed[-1:] + in_time
        case "none":
            return in_time
