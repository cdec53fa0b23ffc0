"""The chores of one queue: each is done by itself, fails by itself, and is tried again after a pause that grows."""

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

_MOST_TOLD = 10  # entries by name, at a time


@dataclass(slots=True)
class Chore:
    """One of them. It is done when its time has come (`wanted`, on the boot clock), or every so many seconds."""

    name: str  # of `faults.CHORES`
    event: str  # sent when it begins to fail
    work: Callable[[], object]  # raises OSError, MaildeferError
    _: KW_ONLY
    every: Callable[[], float] | None = None
    wanted: Callable[[], float] | None = None
    due: float = 0.0
    at_once: bool = True  # as soon as the queue is joined
    refusals: FailedMoves | None = None  # what of it fails by itself
    backoff: Backoff = field(default_factory=Backoff)
    since: int = 0
    error: str = ""

    def next_at(self) -> float:
        """When it is to be done, on the boot clock."""
        due = self.due if self.wanted is None else self.wanted()
        return max(due, self.backoff.not_before)


class Chores:
    """Those of one queue, in the order in which they are done; used by one thread."""

    def __init__(
        self, queue: str, chores: list[Chore], faults: ChoreFaults, system: System, mend: Callable[[], bool]
    ) -> None:
        """`mend` makes again the folders of the queue that are missing, and tells whether there were any."""
        self._queue = queue
        self._mend = mend
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
        self._tell(chore, error)

    def _work(self, chore: Chore) -> None:
        """Once more if it failed for want of a folder of ours."""
        try:
            chore.work()
        except FileNotFoundError:
            if not self._mend():
                raise
            chore.work()

    def _tell(self, chore: Chore, error: str) -> None:
        """What is new about it in the log, and how it stands on the board."""
        if error and error != chore.error:
            events.emit(chore.event, queue=self._queue, error=error)
        chore.error = error
        entries = 0
        if (refusals := chore.refusals) is not None and (entries := len(refusals)):
            error = error or refusals.first()
        if refusals is not None and (unreported := refusals.unreported()):
            for entry, why in unreported[:_MOST_TOLD]:
                events.emit(chore.event, queue=self._queue, entry=os.path.basename(entry), error=why)
            if (more := len(unreported) - _MOST_TOLD) > 0:
                events.emit(chore.event, queue=self._queue, more=more, error=unreported[-1][1])
        if error:
            chore.since = chore.since or int(self._system.time())
            self._faults.tell(ChoreFault(chore=chore.name, since=chore.since, entries=entries, error=error))
        elif chore.since:
            chore.since = 0
            self._faults.clear(chore.name)
            events.emit("chore.recovered", queue=self._queue, chore=chore.name)
