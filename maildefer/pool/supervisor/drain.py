"""The drain of a pool: no more claims, time to finish the messages in hand, then the leases are left."""

from __future__ import annotations

from maildefer import events
from maildefer.maildir.system import boottime
from maildefer.pool.context import PoolContext
from maildefer.pool.frontend.frontends import FrontEnds
from maildefer.pool.messages import LeaveLeases, send
from maildefer.pool.scoreboard import ProcessKind
from maildefer.pool.scoreboard_views import HeaderView
from maildefer.pool.supervisor.spawner import Spawner
from maildefer.pool.supervisor.workers import WorkerTable

_REMIND_SECONDS = 1.0
_CHECK_SECONDS = 0.2
_LEAVE_SECONDS = 5.0  # for the keeper to leave its leases; a hung mount does not hold us longer


class Drain:
    """The state of a drain. `exit_code` and `reason` are those with which the supervisor ends."""

    def __init__(self, context: PoolContext) -> None:
        self._context = context
        self._until: float | None = None
        self._leave_until: float | None = None
        self._remind_at = 0.0
        self.exit_code = 0
        self.reason = "stopped"
        self.restart = False

    @property
    def has_begun(self) -> bool:
        return self._until is not None

    def begin_drain(self, reason: str, *, exit_code: int = 0, restart: bool = False) -> bool:
        """Begin, and write so to the scoreboard; False when it has begun before."""
        if self._until is not None:
            return False
        self.reason, self.exit_code, self.restart = reason, exit_code, restart
        HeaderView(self._context.board).draining = 1
        self._until = boottime() + self._context.settings.drain_seconds
        self._remind_at = boottime() + _REMIND_SECONDS
        return True

    def end_time(self) -> None:
        """End the time for messages in hand now."""
        self._until = boottime()

    def seconds_left(self, now: float) -> float:
        """Compute seconds until the workers are killed, or the next check is due."""
        if self._until is None:
            return 60.0
        return min(self._until - now, _CHECK_SECONDS) if now < self._until else _CHECK_SECONDS

    def enforce_limit(self, now: float, workers: WorkerTable, front_ends: FrontEnds) -> None:
        """Send TERM again, since a handler may have caught the first itself; kill once the time is up."""
        if self._until is None:
            return
        if now >= self._until:
            workers.kill_all()
            front_ends.kill_all()
        elif now >= self._remind_at:
            self._remind_at = now + _REMIND_SECONDS
            workers.retire_all()

    def is_over(self, workers: WorkerTable, front_ends: FrontEnds, spawner: Spawner) -> bool:
        """Whether every worker is gone, its claims reclaimed, every lease left; or the time for that is up."""
        if self._until is None or len(workers) or len(front_ends):
            return False
        if self._leave_until is None:
            spawner.kill(ProcessKind.SCOUT)
            self._leave_until = boottime() + _LEAVE_SECONDS
        if not spawner.has(ProcessKind.KEEPER):
            return True
        if workers.is_all_reclaimed():
            send(self._context.keeper[0], LeaveLeases())
        if boottime() <= self._leave_until:
            return False
        events.emit("lease.kept", waited_ms=events.ms(_LEAVE_SECONDS))
        return True

    def needs_keeper(self, workers: WorkerTable) -> bool:
        """Whether a keeper that ends is followed by another: not once it was to leave its leases."""
        return self._leave_until is None or not workers.is_all_reclaimed()
