"""The periodic tasks of one queue: at each instant of a schedule a call is pushed, by the keeper of one host.

Instants are those of the mount's clock. Keepers tell each other nothing: each looks at a task when an instant has come,
and names of files say which was first (`maildir.upkeep.ticks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import ClassVar

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.handling.periodic.schedule import to_make
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.ticks import Tick, Ticks
from maildefer.pool.keeper.heartbeat import Heartbeat

_AHEAD_SECONDS = 3600.0  # an instant so far in the future was one of a wrong clock


def composed(task: PeriodicTask, queue: str, host: str) -> Callable[[str], Sequence[bytes]]:
    """Return what composes a call of the task."""
    import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
    from maildefer.handling.tasks.call import Call, composed  # only where there are periodic tasks

    return composed(Call(task=task.name, args=[], kwargs={}), task.address, queue, host)


@dataclass(slots=True)
class _WatchedTask:
    task: PeriodicTask
    since: float  # by the mount's time; what passed before may have been missed
    due: float = 0.0  # by the mount's time: when to look at it again
    finished: Tick | None = None  # its entry is known to have left `tmp/`


class Ticker:
    """The chore of one queue's periodic tasks; for the thread of its chores."""

    compose: ClassVar = staticmethod(composed)

    def __init__(self, heartbeat: Heartbeat, host: str, system: System) -> None:
        self._heartbeat = heartbeat
        self._queue = heartbeat.queue
        self._host = host
        self._system = system
        self._ticks = Ticks(self._queue.layout, host=host, system=system)
        self._tables: SimpleQueue[tuple[PeriodicTask, ...]] = SimpleQueue()
        self._watched: dict[str, _WatchedTask] = {}  # by folder
        self.refusals = FailedMoves(system=system)

    def use_table(self, tasks: tuple[PeriodicTask, ...]) -> None:
        """Push calls of these tasks from now on, and of no others. Called by any thread."""
        self._tables.put(tasks)

    def next_at(self) -> float:
        """Compute when to look at a task, on the boot clock."""
        if not self._tables.empty():
            return 0.0
        dues = [watched.due for folder, watched in self._watched.items() if folder not in self.refusals]
        if not dues:
            return self.refusals.next_at()
        due = self._system.boottime() + min(dues) - self._now()
        return min(due, self.refusals.next_at())

    def tick(self) -> None:
        """Push the calls that are due. What fails for one task delays no other. Raises OSError."""
        now = self._now()
        while not self._tables.empty():
            tasks = {task.folder: task for task in self._tables.get()}
            known = {folder: watched.since for folder, watched in self._watched.items()}
            self._watched = {
                folder: _WatchedTask(task, known.get(folder, now)) for folder, task in tasks.items()
            }
            self.refusals.keep(tasks)
        due = [folder for folder, watched in self._watched.items() if watched.due <= now]
        paused = self._ticks.paused() if due else set()
        for folder in filter(self.refusals.may_try, due):
            watched = self._watched[folder]
            if watched.task.label in paused:
                watched.since = now  # the instants until it is resumed are missed
            try:
                self._look_at(folder, watched, now, is_paused=watched.task.label in paused)
            except FileNotFoundError:  # a folder of the queue may be missing
                raise
            except (OSError, ValueError, MaildeferError) as fault:
                self.refusals.note(folder, fault)
            else:
                self.refusals.forget(folder)

    def _now(self) -> float:
        return self._heartbeat.mount_time.now()

    def _look_at(self, folder: str, watched: _WatchedTask, now: float, *, is_paused: bool) -> None:
        schedule, ticks = watched.task.schedule, self._ticks
        last = ticks.last(folder) or ticks.begin(folder, int(now))
        if last.instant > now + _AHEAD_SECONDS:
            events.emit("tick.ahead", queue=self._queue.name, task=watched.task.name, instant=last.instant)
            ticks.finish(last)
            last = ticks.move(folder, last, Tick(instant=int(now), key=last.key))
        if watched.finished != last:
            ticks.finish(last)
            watched.finished = last
        instants = to_make(
            schedule,
            watched.task.catch_up,
            cursor=last.instant,
            now=now,
            watched_since=watched.since,
            grace_seconds=self._heartbeat.format.ttl_seconds,
        )
        for instant in () if is_paused else instants:
            if instant > last.instant:  # else another host has pushed it meanwhile
                last = watched.finished = self._push(folder, watched.task, last, instant)
        watched.due = schedule.next_after(max(last.instant, int(now))) or math.inf

    def _push(self, folder: str, task: PeriodicTask, last: Tick, instant: int) -> Tick:
        context = {"queue": self._queue.name, "task": task.name, "instant": instant}
        if not task.overlap and last.key and not self._ticks.has_ended(last):
            skipped = Tick(instant=instant, key=last.key)
            if (found := self._ticks.move(folder, last, skipped)) == skipped:
                events.emit("tick.skipped", **context, key=last.key)
            self._ticks.finish(found)
            return found
        compose = self.compose(task, self._queue.layout.path, self._host)
        found, is_ours = self._ticks.push(folder, last, instant, compose)
        if is_ours:
            events.emit("tick.pushed", **context, key=found.key)
        return found
