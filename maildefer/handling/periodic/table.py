"""A periodic task as a value, which the probe sends to the supervisor, and the supervisor to its keeper."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from typing import Final, get_args

from maildefer.digest import blake2b
from maildefer.handling.periodic.schedule import LONGEST_SECONDS, CatchUp, Schedule
from maildefer.message.addresses import TASK_DOMAIN
from maildefer.units import seconds_of

MOST_BYTES: Final = 50_000  # of the table of one queue, which goes through a socket as one message
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.]{1,100}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTask:
    """A task of which calls without arguments are pushed by a schedule."""

    name: str  # module.function
    queue: str = ""  # as the settings spell it
    schedule: Schedule
    catch_up: CatchUp = "last"
    overlap: bool = True  # else an instant is left out while the last call has not ended

    @property
    def address(self) -> str:
        return task_address(self.name)

    @property
    def label(self) -> str:
        """The task's name, as names of files have it."""
        return self.name if _PLAIN(self.name) else f"task-{_hashed(self.name)}"

    @property
    def folder(self) -> str:
        """The name of the folder in which its last instant is kept: one for each schedule that it ever had."""
        schedule = self.schedule
        return f"{self.label}@{_hashed(f'{schedule.every_seconds} {schedule.cron} {schedule.zone}')}"


def task_address(name: str) -> str:
    """The address of a task's calls."""
    return f"{name.lower()}@{TASK_DOMAIN}"


def periodic_task(
    name: str,
    *,
    every: object = None,
    cron: object = None,
    tz: object = None,
    catch_up: object = "last",
    overlap: object = True,
) -> PeriodicTask | None:
    """Return what a decorator's arguments mean; None where there is no schedule. Raises ValueError."""
    if every is None and cron is None:
        if tz is not None or catch_up != "last" or overlap is not True:
            raise ValueError("tz=, catch_up= and overlap= are for every= or cron=: give one of these")
        return None
    if every is not None and cron is not None:
        raise ValueError("every= and cron= are two schedules: give one of them")
    if catch_up not in get_args(CatchUp):
        raise ValueError(f"catch_up={catch_up!r}: give one of {', '.join(map(repr, get_args(CatchUp)))}")
    if not isinstance(overlap, bool):
        raise ValueError(f"overlap={overlap!r}: give True or False")
    if every is not None:
        if tz is not None:
            raise ValueError("tz= is for cron=: an interval's instants are its multiples since 1970, in UTC")
        schedule = Schedule(every_seconds=_interval(every))
    else:
        if not isinstance(cron, str) or not isinstance(tz, str | None):
            raise ValueError(
                f"cron={cron!r}, tz={tz!r}: give texts, such as '15 3 * * *' and 'Europe/Berlin'"
            )
        schedule = Schedule(cron=" ".join(cron.split()), zone="UTC" if tz is None else tz)
    schedule.check(int(time.time()))
    return PeriodicTask(name=name, schedule=schedule, catch_up=catch_up, overlap=overlap)  # type: ignore[arg-type]


def record_of(task: PeriodicTask) -> dict[str, object]:
    """Return it as plain data."""
    return asdict(task)


def task_in(record: object) -> PeriodicTask | None:
    """Return what a record of another process says; None for what is no record of a task."""
    match record:
        case {
            "name": str(name),
            "queue": str(queue),
            "schedule": {"every_seconds": int(every), "cron": str(cron), "zone": str(zone)},
            "catch_up": "last" | "all" | "none" as catch_up,
            "overlap": bool(overlap),
        } if (0 < every <= LONGEST_SECONDS and not cron) or (every == 0 and cron):
            schedule = Schedule(every_seconds=every, cron=cron, zone=zone)
            return PeriodicTask(name=name, queue=queue, schedule=schedule, catch_up=catch_up, overlap=overlap)
    return None


def _interval(every: object) -> int:
    if hasattr(every, "total_seconds"):  # a timedelta, whose module a pool can do without
        every = every.total_seconds()
    seconds = seconds_of("every", every)
    if not 1 <= seconds <= LONGEST_SECONDS or seconds != int(seconds):
        raise ValueError(f"every={every!r}: give whole seconds, from one second to a year (365d)")
    return int(seconds)


def _hashed(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
