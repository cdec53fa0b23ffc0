"""One template as the supervisor knows it, and its fork."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from maildefer.host import captured_output
from maildefer.maildir.system import boottime
from maildefer.pool import fork, messages
from maildefer.pool.context import PoolContext
from maildefer.pool.fork import ChildProcess
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import ProbeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateApplication:
    """What a template loads, of which generation."""

    context: PoolContext
    report: ProbeReport
    generation: int


@dataclass(slots=True, kw_only=True, eq=False)
class TemplateChild:
    """A template that has not been reaped."""

    pid: int
    application: TemplateApplication
    socket: socket.socket
    output: int
    preload: bool
    began: float
    heard: float  # when it has said something, or got an order while it had none
    is_ready: bool = False
    is_unfit: bool = False
    retired: bool = False  # was killed by us for no fault of its own
    fault: str = ""
    has_told: bool = False  # has logged the fault itself
    forking: dict[int, ChildProcess] = field(default_factory=dict)  # by slot: workers without a pid

    def signal(self, signum: signal.Signals) -> None:
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:  # ended, and reaped in a moment
            pass

    def has_hung_up(self) -> bool:
        """Whether it has closed its end of the socket, as project code may that closes all descriptors."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def end(self, fault: str = "", *, retired: bool = False) -> None:
        """Kill it; what it was killed for first is what counts."""
        self.fault, self.retired = self.fault or fault, self.retired or retired
        self.signal(signal.SIGKILL)


def fork_template(
    options: PoolOptions, application: TemplateApplication, close: Callable[[], None], *, preload: bool
) -> TemplateChild:
    """Fork a template; `close` closes in it what is the supervisor's. Raises OSError."""
    (ours, theirs), output = messages.pair(), -1
    try:
        output = captured_output.make()
        pid = fork.fork(partial(_run, options, application, close, preload, output, ours, theirs))
    except OSError:  # EAGAIN, ENOMEM, EMFILE
        ours.close()
        captured_output.emit_rest(output, {})
        raise
    finally:
        theirs.close()
    now = boottime()
    return TemplateChild(
        pid=pid, application=application, socket=ours, output=output, preload=preload, began=now, heard=now
    )


def _run(
    options: PoolOptions,
    application: TemplateApplication,
    close: Callable[[], None],
    preload: bool,
    output: int,
    ours: socket.socket,
    theirs: socket.socket,
) -> int:
    from maildefer.pool.template import process  # what workers import stays out of the supervisor

    close()
    ours.close()
    captured_output.close(but=output)
    return process.run(
        process.TemplateStart(
            context=application.context,
            options=options,
            report=application.report,
            preload=preload,
            output=output,
            socket=theirs,
        )
    )
