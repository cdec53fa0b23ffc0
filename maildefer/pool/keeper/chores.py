"""Chores of one queue: each is done by itself, fails by itself, and is tried again after a pause that grows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field

from maildefer import events
from maildefer.backoff import Backoff
from maildefer.errors import MaildeferError
from maildefer.maildir.system import System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.pool.chore_faults import ChoreFault, ChoreFaults

_MOST_LOGGED = 10  # entries by name, at a time


@dataclass(slots=True)
class Chore:
    """A chore of a queue, done when its time has come (`wanted`, on the boot clock), or every so many seconds."""

    name: str  # of `chore_faults.CHORES`
    event: str  # sent when it begins to fail
    work: Callable[[], object]  # raises OSError, MaildeferError
    _: KW_ONLY
    every: Callable[[], float] | None = None
    wanted: Callable[[], float] | None = None
    due: float = 0.0
    at_once: bool = True  # as soon as the queue is joined
    refusals: FailedMoves | None = None  # entries that fail by themselves
    backoff: Backoff = field(default_factory=Backoff)
    since: int = 0
    error: str = ""

    def next_at(self) -> float:
        """Compute when it is due, on the boot clock."""
        due = self.due if self.wanted is None else self.wanted()
        return max(due, self.backoff.not_before)


class Chores:
    """Chores of one queue, in the order in which they are done; used by one thread."""

    def __init__(
        self, queue: str, chores: list[Chore], faults: ChoreFaults, system: System, mend: Callable[[], bool]
    ) -> None:
        """`mend` makes folders of the queue that are missing, and returns whether there were any."""
        self._queue = queue
        self._mend = mend
        self._chores = chores
        self._faults = faults
        self._system = system
        for chore in chores:  # faults of a keeper before this one
            faults.clear_fault(chore.name)

    def do_what_is_due(self) -> None:
        """Do one round. A failure is logged once, and holds up no chore after it."""
        now = self._system.boottime()
        for chore in self._chores:
            if chore.next_at() <= now:
                self._do(chore, now)

    def make_due(self) -> None:
        """Make every periodic chore due now, since the queue was joined anew."""
        for chore in self._chores:
            if chore.at_once:
                chore.due = 0.0

    def next_at(self) -> float:
        """Compute when the next one is due, on the boot clock."""
        return min((chore.next_at() for chore in self._chores), default=math.inf)

    def _do(self, chore: Chore, now: float) -> None:
        error = ""
        try:
            self._work(chore)
        except (OSError, MaildeferError) as fault:
            error = str(fault)
            chore.backoff.note_failure(self._system.boottime())
        else:
            chore.backoff.note_success()
            if chore.every is not None:
                chore.due = now + chore.every()
        self._report(chore, error)

    def _work(self, chore: Chore) -> None:
        """Do it, and once more if it failed for want of a folder of the queue."""
        try:
            chore.work()
        except FileNotFoundError:
            if not self._mend():
                raise
            chore.work()

    def _report(self, chore: Chore, error: str) -> None:
        """Log what is new about it, and write how it stands to the scoreboard."""
        if error and error != chore.error:
            events.emit(chore.event, queue=self._queue, error=error)
        chore.error = error
        entries = 0
        if (refusals := chore.refusals) is not None and (entries := len(refusals)):
            error = error or refusals.first()
        if refusals is not None and (unreported := refusals.unreported()):
            for entry, why in unreported[:_MOST_LOGGED]:
                events.emit(chore.event, queue=self._queue, entry=os.path.basename(entry), error=why)
            if (more := len(unreported) - _MOST_LOGGED) > 0:
                events.emit(chore.event, queue=self._queue, more=more, error=unreported[-1][1])
        if error:
            chore.since = chore.since or int(self._system.time())
            self._faults.note_fault(
                ChoreFault(chore=chore.name, since=chore.since, entries=entries, error=error)
            )
        elif chore.since:
            chore.since = 0
            self._faults.clear_fault(chore.name)
            events.emit("chore.recovered", queue=self._queue, chore=chore.name)
