"""The supervisor: forks, reaps, signals; imports no user code, and never touches the mount after its start.

Signal handlers only note the signal; the loop does the work. What matters is on the board, so that the death of any
child, at any moment, loses nothing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.maildir.system import boottime
from maildefer.pool import children, keeper, scout, snapshot, statussocket, worker
from maildefer.pool.board import Header, Kind, Q, S
from maildefer.pool.children import Child
from maildefer.pool.frontends import FrontEnds
from maildefer.pool.notify import Notifier
from maildefer.pool.plan import Plan
from maildefer.pool.probing import Probe
from maildefer.pool.register import Register
from maildefer.pool.reloading import FileWatch, Roll
from maildefer.pool.shared import Shared, receive, send
from maildefer.pool.throttle import Throttle
from maildefer.pool.workforce import Workforce

_TICK_SECONDS = 1.0
_LEAVE_SECONDS = 5.0  # for the keeper to leave its leases; a hung mount does not hold us longer
_VERBS = {"stop": signal.SIGTERM, "pause": signal.SIGTSTP, "resume": signal.SIGCONT, "reload": signal.SIGHUP}
_CAUGHT = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGUSR1,
    signal.SIGCHLD,
)


class Supervisor:
    """The loop of one pool. `run` is called once, in the main thread."""

    def __init__(self, shared: Shared, plan: Plan, probed: dict[str, Any], status: socket.socket) -> None:
        self._shared = shared
        self._plan = plan
        self._words = shared.board.words
        self._status_socket = status
        self._noted: list[signal.Signals] = []
        self._waker = -1
        self._workforce = Workforce(shared.board)
        self._wanted = shared.settings.workers
        self._stewards: dict[Kind, Child] = {}  # keeper and scout
        self._stewards_throttle = Throttle()
        self._front_ends = FrontEnds(shared, plan, probed)
        self._register = Register(shared)
        self._notifier = Notifier()
        self._roll: Roll | None = None
        self._probe: Probe | None = None
        self._files = FileWatch(probed)
        self._generation = 1
        self._numbers = 0
        self._drain_until: float | None = None
        self._leave_until: float | None = None
        self._restart = False
        self._ready = False
        self._trouble = ""
        self._exit_code = 0
        self._reason = "stopped"

    def run(self) -> int:
        """Until the pool is stopped; returns the exit code. Does not return when it restarts itself."""
        self._boot()
        while not self._is_over():
            self._wait()
            self._heed_signals()
            self._reap()
            self._hear_keeper()
            self._answer_status()
            self._mind_time()
            self._mind_reload()
            self._refill()
        return self._end()

    # Start and end

    def _boot(self) -> None:
        self._catch_signals()
        self._words[Header.STARTED] = self._words[Header.TICK] = int(boottime() * 1e9)
        self._register.write()
        self._refill()
        queues = ",".join(queue.name for queue in self._shared.queues)
        events.emit("pool.started", workers=self._wanted, queues=queues, host=self._shared.host.label)

    def _is_over(self) -> bool:
        """Drained, every dead worker's claims taken back, every lease left; or the keeper's time for that is up."""
        if self._drain_until is None or len(self._workforce) or len(self._front_ends):
            return False
        if self._leave_until is None:
            self._end_scout()
            self._leave_until = boottime() + _LEAVE_SECONDS
        if Kind.KEEPER not in self._stewards:
            return True
        if self._is_all_taken_back():
            send(self._shared.keeper[0], do="leave")
        return boottime() > self._leave_until

    def _end(self) -> int:
        for child in self._stewards.values():
            self._kill(child)
        self._register.remove()
        self._status_socket.close()
        events.emit("pool.stopped", reason=self._reason)
        if self._restart:
            self._start_anew()
        return self._exit_code

    def _start_anew(self) -> None:
        """The settings name other queues: the same process, from the beginning."""
        import sys

        if self._plan.lock_fd >= 0:
            os.set_inheritable(self._plan.lock_fd, True)
        os.execv(sys.executable, [sys.executable, "-m", "maildefer.pool", self._plan.text()])

    # The loop's parts

    def _wait(self) -> None:
        poll = select.poll()
        for descriptor in (self._waker, self._status_socket.fileno(), self._shared.keeper[0].fileno()):
            poll.register(descriptor, select.POLLIN)
        if self._probe is not None:
            poll.register(self._probe.descriptor, select.POLLIN)
        poll.poll(self._until_next() * 1000)
        try:
            os.read(self._waker, 4096)
        except BlockingIOError:  # it was not a signal
            pass

    def _until_next(self) -> float:
        now, wait = boottime(), _TICK_SECONDS
        if self._drain_until is not None:
            wait = min(wait, max(0.0, self._drain_until - now), 0.2)
        if self._roll is not None:
            wait = min(wait, 0.1)
        throttled = self._workforce.throttle.wait(now)
        return min(wait, throttled) if throttled else wait

    def _heed_signals(self) -> None:
        noted, self._noted = self._noted, []
        for signum in noted:
            self._heed(signum)

    def _heed(self, signum: signal.Signals) -> None:
        match signum:
            case signal.SIGTERM:
                self._drain("SIGTERM")
            case signal.SIGINT if self._drain_until is None:
                self._drain("SIGINT")
            case signal.SIGINT | signal.SIGQUIT:
                self._drain(signum.name)
                self._drain_until = boottime()
            case signal.SIGHUP:
                self._begin_reload()
            case signal.SIGTTIN | signal.SIGTTOU:
                self._resize(1 if signum == signal.SIGTTIN else -1)
            case signal.SIGTSTP:
                self._pause()
            case signal.SIGCONT:
                self._resume()
            case signal.SIGUSR1:
                events.reopen()
                for child in (*self._workforce.by_pid.values(), *self._stewards.values()):
                    os.kill(child.pid, signal.SIGUSR1)
            case _:  # SIGCHLD only had to wake us
                pass

    def _drain(self, reason: str) -> None:
        if self._drain_until is not None:
            return
        self._reason = self._reason if self._restart or self._exit_code else reason
        self._words[Header.DRAINING] = 1
        self._drain_until = boottime() + self._shared.settings.drain_seconds
        self._notifier.stopping("draining")
        events.emit("pool.draining", reason=self._reason, seconds=self._shared.settings.drain_seconds)
        self._front_ends.retire_all()
        self._workforce.retire_all()
        if self._probe is not None:
            self._probe.end()
            self._probe = None
        self._roll = None

    def _pause(self) -> None:
        if not self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 1
            os.eventfd_read(self._shared.gate)
            events.emit("pool.paused")

    def _resume(self) -> None:
        for index in range(len(self._shared.queues)):
            base = self._shared.board.queue(index)
            for word in (Q.PAUSED_UNTIL, Q.PAUSE_CODE, Q.FAULTS, Q.UNROUTED):
                self._words[base + word] = 0
        if self._words[Header.PAUSED]:
            self._words[Header.PAUSED] = 0
            os.eventfd_write(self._shared.gate, 1)
            events.emit("pool.resumed")

    def _resize(self, by: int) -> None:
        self._wanted = max(1, min(self._wanted + by, self._shared.board.slots // 2 - 2))
        events.emit("pool.resized", workers=self._wanted)
        if by < 0 and len(self._workforce.staying()) > self._wanted:
            if (child := self._workforce.least_busy()) is not None:
                self._workforce.retire(child, "retired")

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:  # none left
                return
            if pid == 0:
                return
            if pid in self._workforce.by_pid:
                if self._workforce.bury(self._workforce.by_pid[pid], status):
                    send(self._shared.keeper[0], do="take back")
                    self._give_up_if_broken()
            elif not self._front_ends.bury(pid, status):
                self._bury_steward(pid, status)

    def _bury_steward(self, pid: int, status: int) -> None:
        for kind, child in list(self._stewards.items()):
            if child.pid == pid:
                del self._stewards[kind]
                self._shared.board.clear_slot(child.slot)
                if self._drain_until is None:
                    code = os.waitstatus_to_exitcode(status)
                    events.emit("child.died", kind=kind.name.lower(), pid=pid, code=code)
                    lived = boottime() - child.began
                    self._stewards_throttle.note_death(int(lived > 60), boottime())

    def _give_up_if_broken(self) -> None:
        """No worker lives and none can load the application: say so and end, rather than fork for ever."""
        if self._workforce.broken >= max(5, self._wanted) and not self._workforce.staying():
            self._exit_code, self._reason = 78, "no worker can load the application; the log says why"
            self._drain(self._reason)

    def _hear_keeper(self) -> None:
        for message in receive(self._shared.keeper[0]):
            match message:
                case {"fenced": int(index)}:
                    self._workforce.kill_holders(index)
                case {"joined": int()}:
                    self._trouble = ""
                    self._register.write()
                    send(self._shared.keeper[0], do="told leases")
                case {"request": str(verb)}:
                    self._heed(_VERBS[verb])
                case {"refused": str(why)}:
                    self._exit_code, self._reason = 78, why
                    self._drain(why)
                case {"trouble": str(why)}:
                    self._trouble = why

    def _answer_status(self) -> None:
        while True:
            try:
                connection, _ = self._status_socket.accept()
            except OSError:  # nobody asks
                return
            more: dict[str, object] = {
                "wanted": self._wanted,
                "throttled_seconds": round(self._workforce.throttle.wait(boottime()), 1),
                "trouble": self._trouble or None,
                "front_ends": len(self._front_ends),
                "generation": self._generation,
            }
            statussocket.answer(connection, snapshot.of_pool(self._shared, **more))

    def _mind_time(self) -> None:
        now = boottime()
        self._words[Header.TICK] = int(now * 1e9)
        self._workforce.mind_deadlines(now)
        if self._drain_until is not None and now >= self._drain_until:
            self._workforce.kill_all()
            self._front_ends.kill_all()
        if limit := self._shared.settings.memory_bytes_per_worker:
            self._workforce.mind_memory(limit)
        if not self._ready and any(map(self._workforce.is_ready, self._workforce.staying())):
            self._ready = True
            self._notifier.ready()
        if self._ready and not self._workforce.any_overdue():
            self._notifier.watchdog()
        self._notifier.status(self._trouble or self._status_line())

    def _status_line(self) -> str:
        handled = sum(
            self._words[self._shared.board.slot(c.slot) + S.HANDLED] for c in self._workforce.staying()
        )
        state = (
            "draining"
            if self._drain_until is not None
            else "paused"
            if self._words[Header.PAUSED]
            else "serving"
        )
        return f"{state}: {len(self._workforce)} workers, {handled} messages handled by them"

    # Reloading

    def _begin_reload(self) -> None:
        if self._drain_until is None and self._probe is None:
            self._notifier.reloading()
            self._probe = Probe(self._plan.project)

    def _mind_reload(self) -> None:
        if self._drain_until is not None:
            return
        if self._files.changed():
            self._begin_reload()
        if self._probe is not None:
            self._mind_probe(self._probe)
        if self._roll is not None and self._roll.step(self._workforce, self._fork_worker, self._wanted):
            self._roll = None
            self._notifier.ready()

    def _mind_probe(self, probe: Probe) -> None:
        try:
            probed = probe.poll()
            if probed is None:
                return
            settings = self._plan.settings(probed)
            queues = self._plan.served(settings)
        except ConfigurationError as fault:
            self._probe = None
            self._notifier.ready()
            events.emit(
                "application.broken", error=str(fault), detail="\n".join(getattr(fault, "__notes__", []))
            )
            return
        self._probe = None
        if queues != self._shared.queues:
            self._restart, self._reason = True, "other queues in the settings"
            self._drain(self._reason)
            return
        self._shared = replace(self._shared, settings=settings)
        self._generation += 1
        self._workforce.throttle.note_good()
        self._resume_unrouted()
        if self._plan.workers is None:
            self._wanted = settings.workers
        self._files = FileWatch(probed)
        self._front_ends.reload(probed)
        events.emit("pool.reloading", generation=self._generation)
        self._roll = Roll(self._generation)

    def _resume_unrouted(self) -> None:
        """New code may have the routes that were missing."""
        for index in range(len(self._shared.queues)):
            base = self._shared.board.queue(index)
            if self._words[base + Q.UNROUTED]:
                self._words[base + Q.UNROUTED] = self._words[base + Q.PAUSED_UNTIL] = 0

    # Forking

    def _refill(self) -> None:
        """Fork whatever is missing. The keeper comes first: dead workers' slots wait for it."""
        if self._leave_until is None or not self._is_all_taken_back():
            self._fork_steward(Kind.KEEPER)
        if self._drain_until is not None:
            return
        self._fork_steward(Kind.SCOUT)
        self._front_ends.refill()
        while self._roll is None and len(self._workforce.staying()) < self._wanted:
            if self._workforce.throttle.wait(boottime()) or not self._fork_worker():
                return
            if self._workforce.throttle.deaths >= 5:  # one at a time
                return
        if self._roll is None and len(self._workforce.staying()) > self._wanted:
            if (child := self._workforce.least_busy()) is not None:
                self._workforce.retire(child, "retired")

    def _fork_worker(self) -> bool:
        """One more worker; False while no slot is free, or the machine refuses."""
        if (slot := self._workforce.free_slot()) is None:
            return False
        self._numbers += 1
        number, shared = self._numbers, self._shared
        pid = self._fork(Kind.WORKER, slot, lambda: worker.run(shared, slot, number))
        if pid is None:
            return False
        child = Child(
            pid=pid, kind=Kind.WORKER, slot=slot, number=number, generation=self._generation, began=boottime()
        )
        self._workforce.occupy(slot, child)
        return True

    def _fork_steward(self, kind: Kind) -> None:
        if kind in self._stewards or self._stewards_throttle.wait(boottime()):
            return
        if (slot := self._workforce.free_slot()) is None:
            slot = self._shared.board.slots - (
                1 if kind is Kind.KEEPER else 2
            )  # reserved: a keeper must always fit
        shared = self._shared
        main: Callable[[], int] = (
            (lambda: keeper.run(shared)) if kind is Kind.KEEPER else (lambda: scout.run(shared))
        )
        if (pid := self._fork(kind, slot, main)) is not None:
            child = Child(pid=pid, kind=kind, slot=slot, number=0, began=boottime())
            self._words[self._shared.board.slot(slot) + S.PID] = pid
            self._stewards[kind] = child
            events.emit("child.started", kind=kind.name.lower(), pid=pid)

    def _fork(self, kind: Kind, slot: int, main: Callable[[], int]) -> int | None:
        board, lock = self._shared.board, self._plan.lock_fd
        board.clear_slot(slot)
        board.words[board.slot(slot) + S.KIND] = kind

        def begin() -> int:
            board.words[board.slot(slot) + S.PID] = os.getpid()
            self._status_socket.close()
            if lock >= 0:
                os.close(lock)
            signal.signal(signal.SIGUSR1, lambda *_: events.reopen())
            return main()

        try:
            return children.fork(begin)
        except OSError as fault:  # EAGAIN, ENOMEM: the machine is full; try again at the next tick
            board.clear_slot(slot)
            events.emit("pool.throttled", deaths=0, seconds=_TICK_SECONDS, error=str(fault))
            return None

    def _is_all_taken_back(self) -> bool:
        board = self._shared.board
        return all(self._words[board.slot(slot) + S.KIND] != Kind.WORKER for slot in range(board.slots))

    def _end_scout(self) -> None:
        if (child := self._stewards.get(Kind.SCOUT)) is not None:
            self._kill(child)

    def _kill(self, child: Child) -> None:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:  # ended already
            pass

    def _catch_signals(self) -> None:
        self._waker, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for signum in _CAUGHT:
            signal.signal(signum, self._note)

    def _note(self, signum: int, frame: object) -> None:
        self._noted.append(signal.Signals(signum))
