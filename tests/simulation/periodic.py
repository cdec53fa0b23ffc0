"""Calls of a periodic task: each instant has one entry, none before its time, and in the end none is missing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from maildefer.handling.periodic.schedule import Schedule
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.maildir.upkeep.ticks import tick_in
from tests.simulation.world import Request, short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

DATA = b"Subject: a call\n\n"
_EARLIEST_SECONDS = 2.0
_TASK = PeriodicTask(name="workers.digest", schedule=Schedule(every_seconds=1), catch_up="all")


def task(seconds: int) -> PeriodicTask:
    return replace(_TASK, schedule=Schedule(every_seconds=seconds))


@dataclass(slots=True)
class PeriodicCalls:
    oracle: Oracle
    keys: dict[int, str] = field(default_factory=dict)  # by instant: the entry that its name tells of
    first: int | None = None  # when the task began
    pushed: set[str] = field(default_factory=set)

    def moved(self, request: Request) -> None:
        """The name of a task's file goes on."""
        before, after = (tick_in(path.rpartition("/")[2]) for path in (request.source, request.destination))
        assert before is not None
        assert after is not None
        self.first = before.instant if self.first is None else self.first
        if after.instant <= before.instant or after.instant in self.keys:
            self.oracle.fail("tick", f"an instant comes twice: {short(request.destination)}")
        if after.instant - self.oracle.world.mount_time > _EARLIEST_SECONDS:
            self.oracle.fail("tick", f"a call before its time: {short(request.destination)}")
        if before.key and before.key not in self.pushed:
            self.oracle.fail("tick", f"it goes on from a call that was not pushed: {short(request.source)}")
        self.keys[after.instant] = after.key

    def called(self, key: str) -> None:
        """The entry of a call gets into `new/`."""
        if key not in self.keys.values():
            self.oracle.fail("tick", f"a call of no instant is pushed: {key}")
        self.pushed.add(key)

    def are_pushed(self) -> bool:
        """Whether every call is, or was, in `new/`: the last may be on its way as the task ends."""
        return self.pushed.issuperset(self.keys.values())

    def check(self, seconds: int) -> None:
        """In the end there is one for each instant since the task began."""
        if self.first is None:
            return
        following = self.first - self.first % seconds + seconds
        wanted = list(range(following, max(self.keys, default=0) + 1, seconds))
        if sorted(self.keys) != wanted:
            self.oracle.fail("tick", f"instants without a call: {sorted(set(wanted) - self.keys.keys())[:3]}")
        if missing := set(self.keys.values()) - self.pushed:
            self.oracle.fail("tick", f"a call was never pushed: {min(missing)}")
