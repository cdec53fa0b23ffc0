"""The end of a pool: no more claims, time to finish what is in hand, then the leases are left."""

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
_LOOK_SECONDS = 0.2
_LEAVE_SECONDS = 5.0  # for the keeper to leave its leases; a hung mount does not hold us longer


class Drain:
    """How far the end has come. `exit_code` and `reason` are what the supervisor ends with."""

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

    def begin(self, reason: str, *, exit_code: int = 0, restart: bool = False) -> bool:
        """Say so on the board; False when it has begun before."""
        if self._until is not None:
            return False
        self.reason, self.exit_code, self.restart = reason, exit_code, restart
        HeaderView(self._context.board).draining = 1
        self._until = boottime() + self._context.settings.drain_seconds
        self._remind_at = boottime() + _REMIND_SECONDS
        events.emit("pool.draining", reason=reason, limit_ms=events.ms(self._context.settings.drain_seconds))
        return True

    def hurry(self) -> None:
        """Not a moment longer."""
        self._until = boottime()

    def seconds_left(self, now: float) -> float:
        """Until what is in hand is given back, or the next look is due."""
        if self._until is None:
            return 60.0
        return min(self._until - now, _LOOK_SECONDS) if now < self._until else _LOOK_SECONDS

    def enforce_limit(self, now: float, workers: WorkerTable, front_ends: FrontEnds) -> None:
        """Remind those who have not heard, since a handler may have caught the first TERM itself; at last, kill."""
        if self._until is None:
            return
        if now >= self._until:
            workers.kill_all()
            front_ends.kill_all()
        elif now >= self._remind_at:
            self._remind_at = now + _REMIND_SECONDS
            workers.retire_all()

    def is_over(self, workers: WorkerTable, front_ends: FrontEnds, spawner: Spawner) -> bool:
        """Every worker gone, every dead one's claims taken back, every lease left; or the time for that is up."""
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
        """A keeper that has left its leases is not followed by another."""
        return self._leave_until is None or not workers.is_all_reclaimed()
