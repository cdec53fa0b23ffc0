"""The supervisor's templates, one for each generation of the application, and the forks of workers by them.

A worker that was asked for has a slot, and no pid. When its template has told the pid, of a process that is the
supervisor's child by then, it is registered, which its slot shows; before that it does nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import assert_never

from maildefer import events
from maildefer.host import captured_output
from maildefer.host.linux import descendants
from maildefer.maildir.system import boottime
from maildefer.pool import messages
from maildefer.pool.fork import ChildProcess, how_died
from maildefer.pool.messages import InvalidMessage
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import LIMIT_SECONDS
from maildefer.pool.supervisor.spawner import Spawner
from maildefer.pool.supervisor.template_child import TemplateApplication, TemplateChild, fork_template
from maildefer.pool.supervisor.workers import WorkerTable
from maildefer.pool.template import messages as template_messages
from maildefer.pool.template.messages import (
    ForkFailed,
    ForkWorker,
    FromTemplate,
    TemplateBroken,
    TemplateReady,
    TemplateUnfit,
    WorkerForked,
)

_PAUSE_SECONDS = 2.0  # after a fork that failed
_STEADY_SECONDS = 60.0
_FORK_SECONDS = 30.0  # for each fork
_NO_FORK = "the system refused to fork another process"


class Templates:
    """The template of this generation, and the next one while it loads; `close` closes in a child what is ours."""

    def __init__(
        self, options: PoolOptions, spawner: Spawner, workers: WorkerTable, close: Callable[[], None]
    ) -> None:
        self._options = options
        self._spawner = spawner
        self._workers = workers
        self._close = close
        self._children: list[TemplateChild] = []  # not reaped yet
        self._present: TemplateChild | None = None
        self._next: TemplateChild | None = None
        self._outcome: str | None = None  # of the last `load_next`: empty where it is loaded
        self._strangers: dict[int, int] = {}  # wait statuses of unknown children that ended during a fork
        self._ended: list[tuple[ChildProcess, int]] = []
        self._not_before = 0.0

    def __len__(self) -> int:
        return len(self._children)

    @property
    def descriptors(self) -> list[int]:
        return [child.socket.fileno() for child in self._children]

    @property
    def forking(self) -> int:
        """How many workers were asked for that have no pid yet."""
        return sum(len(child.forking) for child in self._children)

    def keep_running(self, application: TemplateApplication) -> None:
        """Start the template of this generation, unless there is one."""
        now = boottime()
        if self._present is None and now >= self._not_before and not self._workers.throttle.wait(now):
            self._present = self._start(application)

    def load_next(self, application: TemplateApplication) -> None:
        """Start the template of the next generation; `take_outcome` tells what became of it."""
        self._next = self._start(application)
        self._outcome = _NO_FORK if self._next is None else None

    def take_outcome(self) -> str | None:
        """Return why the next application can't be loaded, once; empty where it is the present one; None: not yet."""
        outcome, self._outcome = self._outcome, None
        return outcome

    def take_ended(self) -> list[tuple[ChildProcess, int]]:
        """Return the workers that were reaped before they were registered, and their wait statuses, once."""
        ended, self._ended = self._ended, []
        return ended

    def fork_worker(self, generation: int) -> bool:
        """Ask for one more worker; False while none can be had."""
        template = self._present
        if template is None or not template.is_ready or template.retired or boottime() < self._not_before:
            return False
        if (child := self._spawner.prepare_worker(generation)) is None:
            return False
        child.is_shared = template.preload
        ask = ForkWorker(slot=child.slot, number=child.number)
        if not template_messages.order(template.socket, ask, child.output):
            self._spawner.forget_worker(child)
            return False
        if not template.forking:
            template.heard = boottime()
        template.forking[child.slot] = child
        return True

    def receive(self) -> None:
        """Register what was forked, and note what else templates have told; end one that can't be told anything."""
        for child in list(self._children):
            self._receive_from(child)
            if child.has_hung_up():
                child.end()
            if not child.is_ready and boottime() - child.began > LIMIT_SECONDS:
                child.end(f"the application was not loaded for the workers within {LIMIT_SECONDS:g} s")
            if child.forking and boottime() - child.heard > _FORK_SECONDS:  # what it calls at a fork may hang
                child.end(f"no worker was forked within {_FORK_SECONDS:g} s")
        if not self.forking:
            self._strangers.clear()

    def note_death(self, pid: int, status: int) -> int | None:
        """Note the end of a child that is none of the other kinds; returns the exit code of a template that failed.

        Any other pid may be a worker that was forked and is not known yet: its death is kept for that.
        """
        child = next((one for one in self._children if one.pid == pid), None)
        if child is None:
            if self.forking:
                self._strangers[pid] = status
            return None
        self._receive_from(child)
        self._children.remove(child)
        for worker in child.forking.values():  # it will see that its slot is free, and end
            self._spawner.forget_worker(worker)
        child.socket.close()
        captured_output.emit_rest(child.output, {"pid": pid})
        descendants.end_family(pid, ())
        return self._note_end(child, os.waitstatus_to_exitcode(status))

    def kill_all(self) -> None:
        for child in self._children:
            child.end(retired=True)

    def reopen_log(self) -> None:
        for child in self._children:
            child.signal(signal.SIGUSR1)

    def close_in_child(self) -> None:
        for child in self._children:
            child.socket.close()

    def _start(self, application: TemplateApplication, *, preload: bool = True) -> TemplateChild | None:
        preload = preload and application.context.settings.preload
        try:
            child = fork_template(self._options, application, self._close, preload=preload)
        except OSError as fault:  # the loop tries again
            self._not_before = boottime() + _PAUSE_SECONDS
            events.emit("fork.failed", kind="template", error=str(fault))
            return None
        self._children.append(child)
        events.emit("child.started", kind="template", pid=child.pid)
        return child

    def _note_end(self, child: TemplateChild, code: int) -> int | None:
        """Note how a template has ended, and have its successor started; returns the exit code of one that failed."""
        if child.is_unfit and not child.retired:
            self._load_apart(child)
            return None
        how = child.fault or f"the process that loads the application for the workers died: {how_died(code)}"
        if not child.retired:
            events.emit("child.died", kind="template", pid=child.pid, how=how_died(code))
            if not child.has_told and (child.fault or not child.is_ready):
                events.emit("application.broken", error=how, pid=child.pid)
        if child is self._next:
            self._next, self._outcome = None, how
        if child is not self._present:
            return None
        self._present = None
        if child.retired:
            return None
        self._workers.throttle.note_death(int(boottime() - child.began > _STEADY_SECONDS), boottime())
        return None if child.is_ready and not child.fault else code or 1

    def _receive_from(self, child: TemplateChild) -> None:
        received: Iterator[FromTemplate | InvalidMessage] = messages.receive(
            child.socket, template_messages.from_template
        )
        for message in received:
            child.heard = boottime()
            match message:
                case TemplateReady():
                    self._note_ready(child)
                case TemplateUnfit(found=found):
                    child.is_unfit = True
                    events.emit("application.unshared", pid=child.pid, found=found)
                case TemplateBroken(why=why):
                    child.fault, child.has_told = why, True
                case WorkerForked(slot=slot, pid=pid):
                    self._register(child, slot, pid)
                case ForkFailed(slot=slot, why=why):
                    self._not_before = boottime() + _PAUSE_SECONDS
                    events.emit("fork.failed", kind="worker", error=why)
                    if (worker := child.forking.pop(slot, None)) is not None:
                        self._spawner.forget_worker(worker)
                case InvalidMessage(reason=reason):
                    self._end_misbehaving(child, reason)
                case _:
                    assert_never(message)

    def _note_ready(self, child: TemplateChild) -> None:
        child.is_ready = True
        if child is not self._next:
            return
        if self._present is not None:
            self._present.end(retired=True)
        self._present, self._next, self._outcome = child, None, ""

    def _load_apart(self, child: TemplateChild) -> None:
        """Have a template in the place of one that was unfit, of which each worker loads the application by itself."""
        successor = self._start(child.application, preload=False)
        if child is self._present:
            self._present = successor
        elif child is self._next:
            self._next, self._outcome = successor, _NO_FORK if successor is None else None

    def _register(self, template: TemplateChild, slot: int, pid: int) -> None:
        if (worker := template.forking.pop(slot, None)) is None:
            self._end_misbehaving(template, f"it was not asked for a worker of slot {slot}")
            return
        status = self._strangers.pop(pid, None)
        if status is None and not self._is_adopted(pid):
            self._spawner.forget_worker(worker)
            self._end_misbehaving(template, f"what it says is a worker, {pid}, is none")
            return
        worker.pid, worker.began = pid, boottime()
        self._workers.add_worker(worker)
        if status is not None:
            self._ended.append((worker, status))

    def _is_adopted(self, pid: int) -> bool:
        """Whether it is a child of ours that leads a session, as workers do, and that is not known as another."""
        if pid in self._workers.by_pid or any(child.pid == pid for child in self._children):
            return False
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return os.getsid(pid) == pid
        except OSError:  # no child
            return False

    def _end_misbehaving(self, child: TemplateChild, reason: str) -> None:
        if not child.fault:
            events.emit("child.misbehaved", kind="template", pid=child.pid, reason=reason)
            child.end(reason)
