"""The chores of one queue: each is done by itself, fails by itself, and is tried again after a pause that grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from maildefer import events
from maildefer.backoff import Backoff
from maildefer.errors import MaildeferError
from maildefer.maildir.system import System
from maildefer.pool.faults import Fault, Faults


@dataclass(slots=True, kw_only=True)
class Chore:
    """One of them. It is done when its time has come (`wanted`, on the boot clock), or every so many seconds."""

    name: str  # of `faults.CHORES`
    event: str  # sent when it begins to fail
    work: Callable[[], None]  # raises OSError, MaildeferError
    every: Callable[[], float] | None = None
    wanted: Callable[[], float] | None = None
    due: float = 0.0
    at_once: bool = True  # as soon as the queue is joined
    backoff: Backoff = field(default_factory=Backoff)
    since: int = 0
    error: str = ""

    def next_at(self) -> float:
        """When it is to be done, on the boot clock."""
        due = self.due if self.wanted is None else self.wanted()
        return max(due, self.backoff.not_before)


class Chores:
    """Those of one queue, in the order in which they are done; used by one thread."""

    def __init__(self, queue: str, chores: list[Chore], faults: Faults, system: System) -> None:
        self._queue = queue
        self._chores = chores
        self._faults = faults
        self._system = system
        for chore in chores:  # those of a keeper before this one
            faults.clear(chore.name)

    def do_what_is_due(self) -> None:
        """One round. What fails is told once, and holds up nothing that stands behind it."""
        now = self._system.boottime()
        for chore in self._chores:
            if chore.next_at() <= now:
                self._do(chore, now)

    def hurry(self) -> None:
        """The queue was joined anew: what is done every so often is due now."""
        for chore in self._chores:
            if chore.at_once:
                chore.due = 0.0

    def next_at(self) -> float:
        """When the next one is due, on the boot clock."""
        return min((chore.next_at() for chore in self._chores), default=math.inf)

    def _do(self, chore: Chore, now: float) -> None:
        try:
            chore.work()
        except (OSError, MaildeferError) as fault:
            self._tell(chore, fault)
            chore.backoff.note_failure(self._system.boottime())
            return
        if chore.every is not None:
            chore.due = now + chore.every()
        if chore.backoff.failures:
            chore.backoff.note_success()
            chore.since, chore.error = 0, ""
            self._faults.clear(chore.name)
            events.emit("chore.recovered", queue=self._queue, chore=chore.name)

    def _tell(self, chore: Chore, fault: Exception) -> None:
        error = str(fault)
        if error == chore.error:
            return
        chore.error, chore.since = error, chore.since or int(self._system.time())
        self._faults.tell(Fault(chore=chore.name, since=chore.since, entries=0, error=error))
        events.emit(chore.event, queue=self._queue, error=error)
