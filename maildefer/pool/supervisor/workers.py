"""The table of the supervisor's workers: which live, which are to end, what their deaths mean."""

from __future__ import annotations

import os
import signal

from maildefer import events
from maildefer.handling.project.settings import PoolSettings
from maildefer.host import captured_output
from maildefer.host.fork_throttle import ForkThrottle
from maildefer.host.linux import descendants
from maildefer.host.linux.signal_stack import StackDumps
from maildefer.maildir.names import EntryName
from maildefer.maildir.system import boottime
from maildefer.pool import worker_deaths
from maildefer.pool.fork import ChildProcess, Killed, how_died
from maildefer.pool.probe import ProbeReport
from maildefer.pool.scoreboard import ProcessKind, Scoreboard, State
from maildefer.pool.scoreboard_views import HeaderView, SlotView

EX_CONFIG = 78
_TICK_SECONDS = 2.0
_LINES_SECONDS = 0.1
_WORD = (1 << 64) - 1
_ABORT_SECONDS = 5.0  # from ABRT, which prints where the handler stands, to KILL


class WorkerTable:
    """The table of worker processes, by pid; `templates` has them forked."""

    def __init__(self, board: Scoreboard, dumps: StackDumps | None = None) -> None:
        self._board = board
        self._dumps = dumps
        self.by_pid: dict[int, ChildProcess] = {}
        self.throttle = ForkThrottle()
        self.failed_starts = 0  # workers in a row that died before they were ready
        self.any_came_up = False  # whether any that has ended was ever ready

    def __len__(self) -> int:
        return len(self.by_pid)

    def add_worker(self, child: ChildProcess) -> None:
        """Add a worker that was forked, and write it to its slot."""
        slot = self._slot(child)
        slot.pid, slot.started, slot.generation = child.pid, child.began, child.generation
        self.by_pid[child.pid] = child

    def staying(self) -> list[ChildProcess]:
        return [child for child in self.by_pid.values() if not child.retiring]

    def is_ready(self, child: ChildProcess) -> bool:
        return self._slot(child).state in (State.IDLE, State.BUSY)

    def retire(self, child: ChildProcess, killed: Killed = "") -> None:
        """Send TERM to a worker, which then ends after its present message."""
        child.retiring = True
        child.killed = child.killed or killed
        self._signal(child, signal.SIGTERM)

    def retire_all(self) -> None:
        for child in self.by_pid.values():
            self.retire(child)

    def kill_all(self) -> None:
        """Kill all at once; what they held is released uncharged."""
        for child in self.by_pid.values():
            child.retiring = True
            child.killed = "drain"
            self._signal(child, signal.SIGKILL)

    def kill_holders(self, queue: int) -> None:
        """Kill the workers that hold a claim or token of a queue whose lease was fenced: they own it no more."""
        for child in self.by_pid.values():
            if self._board.holds_under(child.slot, queue):
                child.killed, child.family = "fence", descendants.processes_below(child.pid)
                self._signal(child, signal.SIGKILL)

    def end_misbehaving(self, pid: int, reason: str) -> bool:
        """Kill a worker that sent an invalid message, or wrote one to its slot, charged; False if it is none."""
        if (child := self.by_pid.get(pid)) is None:
            return False
        if not child.misbehaved:
            child.misbehaved = True
            events.emit("child.misbehaved", kind="worker", worker=child.number, pid=pid, reason=reason)
            child.family |= descendants.processes_below(pid)
            self._signal(child, signal.SIGKILL)
        return True

    def least_busy(self) -> ChildProcess | None:
        """Choose which worker ends when the pool shrinks: an idle one, else the youngest."""
        staying = self.staying()
        idle = [child for child in staying if self._slot(child).state == State.IDLE]
        return (idle or staying)[-1] if staying else None

    def enforce_deadlines(self, now: float) -> float | None:
        """End handlers that are over their time limit; returns when the next deadline is, on the boot clock."""
        soonest: float | None = None
        for child in self.by_pid.values():
            deadline = self._slot(child).deadline
            if child.aborted_at:
                if now - child.aborted_at > _ABORT_SECONDS:
                    child.family |= descendants.processes_below(child.pid)
                    self._signal(child, signal.SIGKILL)
            elif deadline and now > deadline:
                child.killed, child.aborted_at = "timeout", now
                child.family = descendants.processes_below(child.pid)
                entry = self._board.name(child.slot)
                handler = self._board.handler(child.slot) or None
                events.emit(
                    "worker.timed_out", worker=child.number, pid=child.pid, entry=entry, handler=handler
                )
                self._signal(child, signal.SIGABRT)
            elif deadline:
                soonest = deadline if soonest is None else min(soonest, deadline)
        return soonest

    def any_overdue(self) -> bool:
        return any(child.aborted_at for child in self.by_pid.values())

    def check_slots(self) -> None:
        """Kill a worker whose slot shows another process, a queue that is none, or no state of a living worker."""
        for child in list(self.by_pid.values()):
            slot = self._slot(child)
            kind, pid, queue, state = slot.kind, slot.pid, slot.queue, slot.state
            if (
                (kind, pid) != (ProcessKind.WORKER, child.pid)
                or queue >= self._board.queues
                or state > State.BUSY
            ):
                reason = f"its slot says: kind {kind}, pid {pid}, queue {queue}, state {state}"
                self.end_misbehaving(child.pid, reason)

    def flush_logs(self, now: float) -> None:
        """Have workers in long handlers write the lines that wait: of attempts, and what the handler has printed.

        By CONT, which ends no process.
        """
        for child in self.by_pid.values():
            slot = self._slot(child)
            if not slot.deadline:
                continue
            are_late = slot.lines_since and now - slot.lines_since > _LINES_SECONDS
            if are_late or captured_output.is_unread(child.output):
                self._signal(child, signal.SIGCONT)

    def handled(self) -> int:
        """Count messages that the present workers have settled."""
        return sum(self._slot(child).handled for child in self.staying())

    def why_none_comes_up(self, code: int, wanted: int) -> str:
        """Say why to end rather than fork for ever, after a worker's death with that exit code; else empty.

        A pool of which any worker has ever come up goes on trying.
        """
        if self.any_came_up or self.staying() or self.failed_starts < max(5, wanted):
            return ""
        if code == EX_CONFIG:
            return "no worker can load the application; the log says why"
        how = f"{self.failed_starts} in a row died while they loaded the application"
        return f"no worker comes up: {how}; the log says how"

    def is_all_reclaimed(self) -> bool:
        """Whether no worker is left, nor a dead one's claims."""
        return not any(SlotView(self._board, slot).is_worker for slot in self._board.worker_slots())

    def recycle(self, settings: PoolSettings, now: float) -> None:
        """Replace workers that have grown over their limit, and one that has had nothing to do for long."""
        if settings.memory_bytes_per_worker:
            self._recycle_grown(settings.memory_bytes_per_worker)
        if settings.idle_seconds_per_worker:
            self._recycle_rested(settings.idle_seconds_per_worker, now)

    def _recycle_rested(self, seconds: float, now: float) -> None:
        """Replace a worker that has handled messages, and has rested for so long, by a fork that shares more memory.

        One at a time, so that there is always another for a message that comes.
        """
        for child in self.staying():
            slot = self._slot(child)
            if (handled := slot.handled) != child.handled or slot.state != State.IDLE:
                child.handled, child.rested_since = handled, now
            elif child.is_shared and handled and now - child.rested_since > seconds:
                rested = round(now - child.rested_since)
                events.emit("worker.recycled", worker=child.number, pid=child.pid, idle_seconds=rested)
                self.retire(child, "recycled")
                return

    def _recycle_grown(self, limit_bytes: int) -> None:
        """Replace workers that have grown over the limit, after the messages in hand.

        One that has had none yet would be replaced by one as big: then nothing would ever be handled.
        """
        for child in self.staying():
            if not self._slot(child).handled and not self._board.holds(child.slot):
                continue
            try:
                with open(f"/proc/{child.pid}/statm", "rb") as file:
                    resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, IndexError):  # it has just ended
                continue
            if resident > limit_bytes:
                events.emit("worker.recycled", worker=child.number, pid=child.pid, resident_bytes=resident)
                self.retire(child, "recycled")

    def reap(self, child: ChildProcess, status: int) -> bool:
        """Note the end of a worker; returns whether its claims have to be reclaimed before its slot is free."""
        del self.by_pid[child.pid]
        slot = self._slot(child)
        # Whatever it wrote there: by these the keeper knows which claims to reclaim.
        slot.pid, slot.kind = child.pid, ProcessKind.WORKER
        captured_output.emit_rest(child.output, self._about(child))
        settled = slot.handled
        held = self._board.holds(child.slot)
        handling = slot.deadline != 0 or self._board.in_handlers(child.slot) > 0
        was_starting = slot.state == State.STARTING
        self.any_came_up = self.any_came_up or not was_starting
        code = os.waitstatus_to_exitcode(status)
        if code == 0 and not held:
            events.emit("worker.ended", worker=child.number, pid=child.pid, handled=settled)
            self.failed_starts = 0
            self._board.clear_slot(child.slot)
            return False
        orphans = descendants.end_family(child.pid, child.family)
        # It may have died of its own accord before our signal came.
        spared = child.killed in ("drain", "fence") and code == -signal.SIGKILL
        charged = handling and not spared
        limit = slot.limit_seconds or max(0.0, slot.deadline - slot.began)
        if not handling:
            slot.began = slot.handler_length = 0
        over = handling and child.killed == "timeout"
        death = worker_deaths.note_death(
            self._board, child.slot, status, self._dumps, limit_seconds=limit if over else 0.0
        )
        how = how_died(code)
        entry = self._board.name(child.slot) if held else None
        events.emit(
            "worker.died",
            worker=child.number,
            pid=child.pid,
            how=how,
            entry=entry,
            charged=charged,
            handler=death.handler,
            duration_ms=None if death.seconds is None else events.ms(death.seconds),
            children=orphans or None,
            traceback=death.stack,
        )
        # Behind the event: from here on the keeper may take back what it held, and tells that.
        slot.deadline = 0.0
        slot.state = State.DEAD_CHARGED if charged else State.DEAD_UNCHARGED
        header = HeaderView(self._board)
        header.deaths = (header.deaths + 1) & _WORD
        if not child.retiring and child.killed == "":
            self.failed_starts = self.failed_starts + 1 if was_starting else 0
            self.throttle.note_death(settled, boottime())
        return True

    def _about(self, child: ChildProcess) -> dict[str, object]:
        """Describe the message to which a dead worker's output belongs."""
        name = self._board.name(child.slot) if self._board.holds(child.slot) else ""
        handler = self._board.handler(child.slot) if name else ""
        return {
            "pid": child.pid,
            "key": EntryName.parse(name).key if name else None,
            "handler": handler or None,
        }

    def _slot(self, child: ChildProcess) -> SlotView:
        return SlotView(self._board, child.slot)

    def _signal(self, child: ChildProcess, signum: signal.Signals) -> None:
        try:
            os.kill(child.pid, signum)
        except ProcessLookupError:  # ended, and reaped in a moment
            pass


def tick_seconds(settings: PoolSettings, report: ProbeReport) -> float:
    """Compute how often to read the scoreboard: more often for a short time limit, or for sources that may change."""
    own = [route.timeout_seconds for route in report.routes if route.timeout_seconds]
    limit = min(settings.handler_timeout_seconds or _TICK_SECONDS * 4, *own, _TICK_SECONDS * 4)
    return min(1.0 if report.reload else _TICK_SECONDS, max(0.2, limit / 4))
