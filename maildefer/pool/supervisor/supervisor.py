"""The supervisor: forks, reaps, signals; imports no user code, and never touches the mount after its start.

Signal handlers only note the signal; the loop does the work. What matters is on the scoreboard, so that the death of
any child, at any moment, loses nothing.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import assert_never

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.host.linux import descendants
from maildefer.maildir.system import boottime
from maildefer.pool import messages
from maildefer.pool.context import PoolContext
from maildefer.pool.frontend.frontends import FrontEnds
from maildefer.pool.messages import ChildMisbehaved, InvalidMessage
from maildefer.pool.options import PoolOptions
from maildefer.pool.pause import PoolPause
from maildefer.pool.probe import ProbeReport
from maildefer.pool.scoreboard import ProcessKind
from maildefer.pool.scoreboard_views import HeaderView
from maildefer.pool.supervisor.drain import Drain
from maildefer.pool.supervisor.reaper import Reaper
from maildefer.pool.supervisor.reload import ProbedApplication, Reloader, Roll
from maildefer.pool.supervisor.runtime_record import RuntimeRegistration
from maildefer.pool.supervisor.signals import Signals, hold_signals
from maildefer.pool.supervisor.spawner import Spawner
from maildefer.pool.supervisor.status_server import StatusServer
from maildefer.pool.supervisor.template_child import TemplateApplication
from maildefer.pool.supervisor.templates import Templates
from maildefer.pool.supervisor.workers import EX_CONFIG, WorkerTable, tick_seconds

_FORKS_A_TURN = 16  # of the loop, which handles signals between them
_VERBS = {"stop": signal.SIGTERM, "pause": signal.SIGTSTP, "resume": signal.SIGCONT, "reload": signal.SIGHUP}


class Supervisor:
    """The loop of one pool. `run` is called once, in the main thread."""

    def __init__(
        self, context: PoolContext, options: PoolOptions, report: ProbeReport, status: socket.socket
    ) -> None:
        self._context = context
        self._options = options
        self._header = HeaderView(context.board)
        self._signals = Signals()
        self._workers = WorkerTable(context.board, context.dumps)
        self._spawner = Spawner(context, self._close_in_child)
        self._templates = Templates(options, self._spawner, self._workers, self._close_in_child)
        self._front_ends = FrontEnds(context, options, report)
        self._reaper = Reaper(context, self._workers, self._front_ends, self._templates, self._spawner)
        self._registration = RuntimeRegistration(context)
        self._status_server = StatusServer(context, self._workers, status)
        self.drain = Drain(context)
        self._pause = PoolPause(context)
        self._reloader = Reloader(options, report, context)
        self._application = TemplateApplication(context=context, report=report, generation=1)
        self._reloaded: ProbedApplication | None = None  # while its template loads it
        self._roll: Roll | None = None
        self._tick_seconds = tick_seconds(context.settings, report)
        self._wanted, self._forks_on = context.settings.workers, False

    def run(self) -> int:
        """Run until the pool is stopped; returns the exit code. Does not return when it restarts itself."""
        self._boot()
        while len(self._templates) or not self.drain.is_over(self._workers, self._front_ends, self._spawner):
            ready = self._wait()
            for signum in self._signals.take_noted():
                self._handle_signal(signum)
            if self._context.keeper[0].fileno() in ready:
                self._receive_from_keeper()
            if self._status_server.descriptor in ready:
                self._status_server.answer(**self._facts())
            self._templates.receive()
            if cannot := self._reaper.why_end(self._wanted):
                self._begin_drain(cannot.reason, exit_code=cannot.exit_code)
            self._do_what_is_due()
            self._continue_reload()
            self._refill()
        return self._end()

    def _boot(self) -> None:
        self._header.started = self._header.tick = boottime()
        self._registration.write()
        queues = ",".join(queue.name for queue in self._context.queues)
        events.emit("pool.started", workers=self._wanted, queues=queues, host=self._context.host.label)
        self._refill()

    def _end(self) -> int:
        self._spawner.kill(ProcessKind.KEEPER, ProcessKind.SCOUT)
        self._front_ends.close()
        if not self.drain.restart:
            descendants.end_below(os.getpid())  # what handlers have started, and left running
        self._registration.remove()
        self._status_server.close()
        events.emit("pool.stopped", reason=self.drain.reason)
        if self.drain.restart:  # the same process, executed anew
            hold_signals()
            if self._options.lock_fd >= 0:
                os.set_inheritable(self._options.lock_fd, True)
            os.execv(sys.executable, [sys.executable, "-m", "maildefer.pool", self._options.text()])
        return self.drain.exit_code

    def _wait(self) -> set[int]:
        """Sleep until something is to be done; returns the descriptors that are readable."""
        poll = select.poll()
        own = (self._signals.descriptor, self._status_server.descriptor, self._context.keeper[0].fileno())
        for descriptor in (*own, *self._templates.descriptors):
            poll.register(descriptor, select.POLLIN)
        if (probe := self._reloader.descriptor) is not None:
            poll.register(probe, select.POLLIN)
        return {descriptor for descriptor, _ in poll.poll(self._seconds_until_next() * 1000)}

    def _seconds_until_next(self) -> float:
        now = boottime()
        wait = 0.0 if self._forks_on else min(self._tick_seconds, self.drain.seconds_left(now))
        if self._roll is not None:
            wait = min(wait, 0.1)
        throttled = self._workers.throttle.wait(now)
        return min(wait, throttled) if throttled else wait

    def _handle_signal(self, signum: signal.Signals) -> None:
        match signum:
            case signal.SIGUSR2 if self._options.drain:
                self._begin_drain("drained")
            case signal.SIGTERM | signal.SIGINT if signum == signal.SIGTERM or not self.drain.has_begun:
                self._begin_drain(signum.name)
            case signal.SIGINT | signal.SIGQUIT:
                self._begin_drain(signum.name)
                self.drain.end_time()
            case signal.SIGHUP if not self.drain.has_begun:
                self._status_server.notifier.reloading()
                self._reloader.request()
            case signal.SIGTTIN | signal.SIGTTOU:
                self._wanted += 1 if signum == signal.SIGTTIN else -1
                self._wanted = max(1, min(self._wanted, self._context.board.most_workers))
                events.emit("pool.resized", workers=self._wanted)
            case signal.SIGTSTP:
                self._pause.pause()
            case signal.SIGCONT:
                self._pause.resume()
            case signal.SIGUSR1:
                events.reopen()
                for child in (*self._workers.by_pid.values(), *self._spawner.keeper_and_scout):
                    os.kill(child.pid, signal.SIGUSR1)
                self._templates.reopen_log()
                self._front_ends.reopen_log()
            case signal.SIGCHLD:
                self._reaper.reap_children()
            case _:  # SIGHUP in a drain; SIGUSR2
                pass

    def _begin_drain(self, reason: str, *, exit_code: int = 0, restart: bool = False) -> None:
        """Stop claiming, and let workers finish the messages in hand for so long."""
        if self.drain.begin_drain(reason, exit_code=exit_code, restart=restart):
            self._status_server.notifier.stopping("draining")
            self._front_ends.retire_all()
            self._workers.retire_all()
            # Behind the signals, so that nothing is claimed after the line.
            limit_ms = events.ms(self._context.settings.drain_seconds)
            events.emit("pool.draining", reason=reason, limit_ms=limit_ms)
            self._templates.kill_all()
            self._reloader.stop()
            self._roll = self._reloaded = None

    def _receive_from_keeper(self) -> None:
        received: Iterator[messages.FromKeeper | InvalidMessage] = messages.receive(
            self._context.keeper[0], messages.from_keeper
        )
        for message in received:
            match message:
                case messages.LeaseLost(queue=index):
                    self._workers.kill_holders(index)
                case messages.LeaseJoined():
                    self._status_server.trouble = ""
                    self._registration.write()
                    messages.send(self._context.keeper[0], messages.WritePidFile())
                    self._reloader.tell_keeper()
                case messages.RequestReceived(verb=verb):
                    self._handle_signal(_VERBS[verb])
                case messages.MountRefused(why=why):
                    self._begin_drain(why, exit_code=EX_CONFIG)
                case messages.JoinFailed(why=why):
                    self._status_server.trouble = why
                case messages.SlotReclaimed():  # the scoreboard shows the slot as free
                    pass
                case InvalidMessage(pid=pid, reason=reason) | ChildMisbehaved(pid=pid, reason=reason):
                    if not self._workers.end_misbehaving(pid, reason):
                        self._spawner.end_misbehaving(pid, reason)
                case _:
                    assert_never(message)

    def _facts(self) -> dict[str, object]:
        """Collect what `status` shows and only the supervisor knows."""
        return {
            "wanted": self._wanted,
            "throttled_seconds": round(self._workers.throttle.wait(boottime()), 1),
            "front_ends": self._front_ends.facts(),
            "front_end_groups": self._front_ends.health(),
            "generation": self._application.generation,
            "reload_refused": self._reloader.refused or None,
            "reload": asdict(self._reloader.progress),
        }

    def _do_what_is_due(self) -> None:
        now = boottime()
        self._header.tick = now
        self._workers.check_slots()
        self._workers.enforce_deadlines(now)
        self._workers.flush_logs(now)
        self.drain.enforce_limit(now, self._workers, self._front_ends)
        self._workers.recycle(self._context.settings, now)
        self._status_server.report(now)

    def _continue_reload(self) -> None:
        if self.drain.has_begun:
            return
        try:
            if (reloaded := self._reloader.poll()) is not None:
                self._load(reloaded)
        except ConfigurationError:  # logged already; the old workers stay
            self._status_server.notifier.ready()
        if self._reloaded is not None and (refused := self._templates.take_outcome()) is not None:
            self._reloader.conclude(refused)
            if refused:  # the old template and its workers stay
                self._status_server.notifier.ready()
            else:
                self._roll_over_to(self._reloaded)
            self._reloaded = None
        if self._roll is not None and self._roll.step(self._workers, self._templates, self._wanted):
            self._end_roll(self._roll)

    def _load(self, reloaded: ProbedApplication) -> None:
        """Have a template load a sound application, or restart where the shared memory does not fit it."""
        if reason := reloaded.why_restart(self._context):
            self._reloader.conclude("")
            self._begin_drain(reason, restart=True)
            return
        self._reloaded = reloaded
        self._templates.load_next(reloaded.after(self._application))

    def _roll_over_to(self, reloaded: ProbedApplication) -> None:
        """Replace the workers of the old template by those of the new one."""
        self._application = reloaded.after(self._application)
        self._context = self._application.context
        self._options.configure_log(reloaded.settings)
        self._workers.throttle.note_success()
        if self._options.workers is None:
            self._wanted = reloaded.settings.workers
        events.emit("pool.reloading", generation=self._application.generation)
        self._roll = Roll(self._application.generation, reloaded.report)

    def _end_roll(self, roll: Roll) -> None:
        """Reload the front ends, only now: an old worker would bury for want of a route what the new routes let in."""
        self._roll = None
        self._front_ends.reload(roll.report)
        self._pause.resume_unrouted()
        self._status_server.notifier.ready()

    def _refill(self) -> None:
        """Fork what is missing. The keeper comes first: dead workers' slots wait for it."""
        self._forks_on = False
        if self.drain.needs_keeper(self._workers):
            self._spawner.keep_running(ProcessKind.KEEPER, self._context)
        if self.drain.has_begun:
            return
        self._spawner.keep_running(ProcessKind.SCOUT, self._context)
        self._front_ends.refill()
        self._templates.keep_running(self._application)
        if self._roll is not None:
            return
        throttle = self._workers.throttle
        missing = self._wanted - len(self._workers.staying()) - self._templates.forking
        for _ in range(min(_FORKS_A_TURN, missing)):
            forked = not throttle.wait(boottime()) and self._templates.fork_worker(
                self._application.generation
            )
            if not forked or throttle.deaths >= 5:  # one at a time
                return
        self._forks_on = missing > _FORKS_A_TURN
        if len(self._workers.staying()) > self._wanted and (child := self._workers.least_busy()) is not None:
            self._workers.retire(child, "retired")

    def _close_in_child(self) -> None:
        self._status_server.close()
        self._templates.close_in_child()
        self._front_ends.close_in_child()
        self._signals.close_in_child()
        if self._options.lock_fd >= 0:
            os.close(self._options.lock_fd)
