"""A template: loads the application once, and forks the workers that the supervisor asks for.

A worker is forked twice, so that the supervisor adopts it: by a child of the template's, which ends at once. It then
waits until the supervisor, as its parent, has registered it, and only from then on is a worker, which ends with the
supervisor. What dies in between is found by whoever is left: the template says that there is no worker, or the
supervisor, where the template itself dies, frees the slot, and what waited for it ends.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.host.captured_output import CapturedOutput
from maildefer.host.linux import shared_heap, signal_stack
from maildefer.host.linux.prctl import die_with_parent
from maildefer.host.linux.process_title import set_title
from maildefer.host.linux.unshareable import find_unshareable, open_descriptors
from maildefer.host.working_directory import WorkingDirectory
from maildefer.message import templates
from maildefer.pool.context import PoolContext
from maildefer.pool.fork import end_with
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import ProbeReport
from maildefer.pool.scoreboard import ProcessKind, SlotWord
from maildefer.pool.template import modules
from maildefer.pool.template.messages import (
    ForkFailed,
    ForkWorker,
    TemplateBroken,
    TemplateReady,
    TemplateUnfit,
    WorkerForked,
    next_order,
    tell,
)
from maildefer.pool.worker import run as worker_process
from maildefer.pool.worker.run import LoadedApplication

_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.0001, 0.01
_MOST_BYTES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateStart:
    """What the supervisor gives to a template. `output` is the file for what the project's code prints."""

    context: PoolContext
    options: PoolOptions
    report: ProbeReport
    preload: bool
    output: int
    socket: socket.socket


def run(start: TemplateStart) -> int:
    """Run a template in its own process; returns the exit code."""
    os.setsid()  # what the project's code starts is in its session, unless it makes one of its own
    context = start.context
    context.close_for(ProcessKind.WORKER)
    signal.signal(signal.SIGUSR1, lambda *_: events.reopen())
    start.options.configure_log(context.settings)
    set_title(f"template {' '.join(queue.name for queue in context.queues)}")
    signal_stack.enable()  # its stack is the workers', too
    loaded = None
    try:
        captured = CapturedOutput(start.output)
        captured.capture()
        directory = worker_process.enter_project(context)
        modules.load(start.report)
        if start.preload:
            known = open_descriptors()
            loaded = worker_process.load_application(context, directory)
            templates.make_environments()
            captured.drain()
            if found := find_unshareable(known):
                tell(start.socket, TemplateUnfit(found=", ".join(found)))
                return 0
            loaded.make_workers(context)
    except (ConfigurationError, OSError) as fault:
        tell(start.socket, TemplateBroken(why=worker_process.refuse(context, fault)))
        return worker_process.EXIT_APPLICATION_BROKEN
    shared_heap.freeze()
    tell(start.socket, TemplateReady())
    return ReadyTemplate(context, start.socket, captured, directory, loaded).serve()


class ReadyTemplate:
    """A template that has loaded what it is to load. It changes as little as it can: workers would have copies."""

    def __init__(
        self,
        context: PoolContext,
        orders: socket.socket,
        captured: CapturedOutput,
        directory: WorkingDirectory,
        loaded: LoadedApplication | None,
    ) -> None:
        self._context = context
        self._socket = orders
        self._captured = captured
        self._directory = directory
        self._loaded = loaded

    def serve(self) -> int:
        """Fork what is asked for, until the supervisor is gone."""
        while (received := next_order(self._socket)) is not None:
            order, output = received
            try:
                tell(self._socket, self._fork(order, output))
            finally:
                if output >= 0:
                    os.close(output)
        return 0

    def _fork(self, order: ForkWorker, output: int) -> WorkerForked | ForkFailed:
        """Fork twice; both have ended or said something when this returns."""
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC)
        except OSError as fault:
            return ForkFailed(slot=order.slot, why=str(fault))
        try:
            if not (between := os.fork()):
                self._fork_again(order, output, writer)
        except OSError as fault:  # EAGAIN, ENOMEM: the machine is full
            os.close(reader)
            os.close(writer)
            return ForkFailed(slot=order.slot, why=str(fault))
        os.close(writer)
        said = os.read(reader, _MOST_BYTES)  # all of it: it is written at once, or not
        os.close(reader)
        os.waitpid(between, 0)  # from then on the supervisor is the worker's parent
        if said.isdigit():
            return WorkerForked(slot=order.slot, pid=int(said))
        return ForkFailed(
            slot=order.slot, why=said.decode("utf-8", "replace") or "it was killed between two forks"
        )

    def _fork_again(self, order: ForkWorker, output: int, writer: int) -> NoReturn:
        between = os.getpid()
        try:
            if os.fork():
                os._exit(0)
        except OSError as fault:
            os.write(writer, str(fault).encode())
            os._exit(0)
        end_with(lambda: self._become_worker(order, output, writer, between))

    def _become_worker(self, order: ForkWorker, output: int, writer: int, between: int) -> int:
        os.setsid()  # what its handlers start is in its session, unless it makes one of its own
        os.write(writer, str(os.getpid()).encode())
        os.close(writer)
        self._socket.close()
        _await_registration(self._context, order.slot, between)
        events.reopen()  # which may have been asked for since the fork
        self._captured.move_to(output)
        return worker_process.run(
            self._context, order.slot, order.number, self._captured, self._directory, self._loaded
        )


def _await_registration(context: PoolContext, slot: int, between: int) -> None:
    """Wait until the supervisor, as our parent, has written our pid to the slot; end where the slot is another's."""
    words, base = context.board.words, context.board.slot(slot)
    pid, seconds = os.getpid(), _FIRST_LOOK_SECONDS
    while (registered := words[base + SlotWord.PID]) != pid:
        is_ours = words[base + SlotWord.KIND] == ProcessKind.WORKER and not registered
        if not is_ours or os.getppid() not in (between, context.supervisor):
            os._exit(0)
        time.sleep(seconds)
        seconds = min(2 * seconds, _LONGEST_LOOK_SECONDS)
    die_with_parent(context.supervisor)
