"""Looking at processes and queues again and again, for whoever waits for news.

The processes of this host are asked, and queues are looked at, each in a child: a mount that hangs holds up nothing
else. The longer a look at the queues takes, the more rarely it is taken, in a twentieth of the time. No queue is
looked at while an earlier look at it hangs in the kernel, where nothing ends it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import Any, Final

from maildefer.cli.live.history import History
from maildefer.cli.live.overview import Overview, overview_of
from maildefer.cli.status_survey import SECONDS, ask_of, asked_of, looks_at, queues_of, survey_of
from maildefer.host.bounded_async import call_again
from maildefer.host.runtime_dir import RuntimeRecord

_WATCHED_SECONDS: Final = 2.0  # between two looks while somebody waits for news
_ALONE_SECONDS: Final = 15.0
_LONGEST_SECONDS: Final = 60.0
RATE: Final = "rate"  # of the history: messages a second of all pools
_SHARE: Final = 20  # so many times as long as a look at queues took, none is taken


class Watch:
    """The newest overview, and the history of rates and counts. Event loop only."""

    def __init__(
        self, records: Callable[[], list[RuntimeRecord]], named: list[str] | None, history: History
    ) -> None:
        """`records` finds the processes of this host that are meant, without a look at a mount."""
        self.overview = Overview(at=time.monotonic())
        self.history = history
        self.version = 0
        self._records = records
        self._named = named
        self._home = os.getcwd()
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._watchers = 0
        self._known: list[str] = []
        self._looks: list[Any] = []
        self._looked: float | None = None  # on the loop's clock
        self._next_look = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def keep_looking(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_WATCHED_SECONDS)
            if not self._watchers:
                self._wanted.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ALONE_SECONDS):
                        await self._wanted.wait()

    async def look(self) -> None:
        """Ask all processes, look at the queues where that is due, and tell those who wait."""
        loop = asyncio.get_running_loop()
        records = self._records()
        known = queues_of(records, self._named)
        if self._looking is None or (
            self._looking.done() and (loop.time() >= self._next_look or known != self._known)
        ):
            self._looking = loop.create_task(self._look_at_queues(known))
        answers = await asyncio.gather(*(call_again(ask_of(record), SECONDS) for record in records))
        if self._looked is None or self._looking.done():  # the first shows all
            await self._looking
        local = [(asked_of(record, answer), None) for record, answer in zip(records, answers, strict=True)]
        age = None if self._looked is None else loop.time() - self._looked
        seen = survey_of([*local], self._known, self._looks)
        self.publish(overview_of(seen, time.monotonic(), age, self._home))

    def publish(self, overview: Overview) -> None:
        """Note an overview in the history, and tell those who wait for news."""
        before, self.overview = self.overview, overview
        self.version += 1
        for path, rate in _rates(before, overview).items():
            self.history.note(overview.at, f"{RATE} {path}", rate)
        if rates := [pool.rate for pool in overview.pools if pool.rate is not None]:
            self.history.note(overview.at, RATE, sum(rates))
        for row in overview.queues:
            if row.counts is not None:
                self.history.note(overview.at, f"waiting {row.path}", row.counts.waiting)
                self.history.note(overview.at, f"dead {row.path}", row.counts.dead)
        self._news.set()
        self._news = asyncio.Event()

    async def next(self, version: int) -> int:
        """Wait until there is a newer version than that; returns it. Many may wait at a time."""
        self._watchers += 1
        self._wanted.set()  # for a look at once, where there was nobody before
        try:
            while self.version <= version:
                await self._news.wait()
        finally:
            self._watchers -= 1
        return self.version

    async def _look_at_queues(self, known: list[str]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        jobs = looks_at(known, elsewhere=not self._named)
        is_again = known == self._known and len(self._looks) == len(jobs)
        before = self._looks if is_again else [None] * len(jobs)
        self._looks = await asyncio.gather(*map(call_again, jobs, repeat(SECONDS), before))
        self._known, self._looked = known, loop.time()
        pause = min(max(_WATCHED_SECONDS, _SHARE * (self._looked - began)), _LONGEST_SECONDS)
        self._next_look = self._looked + pause


def _rates(before: Overview, after: Overview) -> dict[str, float]:
    """Attempts a second in each queue of which they are counted. A pool that began anew counts from zero."""
    seconds = after.at - before.at
    if seconds <= 0 or not before.attempts:
        return {}
    made: dict[str, int] = {}
    for sign, seen in ((-1, before), (1, after)):
        for one in seen.attempts:
            made[one.queue] = made.get(one.queue, 0) + sign * one.attempts
    return {path: max(0, number) / seconds for path, number in made.items()}
