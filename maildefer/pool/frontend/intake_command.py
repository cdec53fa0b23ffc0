"""How an intake process is executed: its command line, its environment, and the descriptors that it inherits.

It is executed anew, never forked, so that no handler code is in it (I11). Whoever executes it blocks `EARLY_SIGNALS`,
as `ProcessImage.execute` does for programs without a supervisor.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from maildefer import events
from maildefer.host import environment
from maildefer.intake.connection_table import TableRow
from maildefer.intake.startup import EARLY_SIGNALS
from maildefer.pool.fork import read_only_memory

if TYPE_CHECKING:
    import subprocess

INTAKE_MODULE = "maildefer.intake"
HTTP_MODULE = "maildefer.intake.http"


class BoundSocket(Protocol):
    """A bound socket; as text, its address."""

    @property
    def socket(self) -> socket.socket: ...

    @property
    def option(self) -> str:
        """The value of `--socket-fd`."""


class RoutesMemory:
    """The routes whose mail is taken, in memory that intake processes only read, again at HUP."""

    def __init__(self) -> None:
        self._writer, self.descriptor = read_only_memory("routes")

    def write(self, routes: Sequence[Mapping[str, object]]) -> None:
        """Replace what is there."""
        data = json.dumps({"routes": routes}).encode()
        before = os.fstat(self._writer).st_size
        os.pwrite(self._writer, data.ljust(before), 0)  # never shorter for a moment: a process may be reading
        os.ftruncate(self._writer, len(data))

    def close(self) -> None:
        os.close(self._writer)
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessImage:
    """What execve(2) takes, and the descriptors that stay open."""

    argv: list[str]
    environ: dict[str, str]
    inherited: list[int]

    def execute(self, *, cwd: str | None = None) -> subprocess.Popen[bytes]:
        """Execute it as a child that logs to this process's log. Raises OSError."""
        import subprocess  # not in a supervisor

        before = signal.pthread_sigmask(signal.SIG_BLOCK, EARLY_SIGNALS)  # the process inherits it
        try:
            return subprocess.Popen(
                self.argv,
                pass_fds=self.inherited,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=events.descriptor(),
                env=self.environ,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeCommand:
    """How the intake processes of one front end are executed, alike but for the descriptors of each."""

    module: str = INTAKE_MODULE
    options: Sequence[str]
    listeners: Sequence[BoundSocket]
    routes: RoutesMemory | None = None
    environment: Sequence[str] = ()
    """Names of the variables that it gets besides those of the list."""

    def image(
        self,
        *,
        report_fd: int,
        connection_row: TableRow | None = None,
        lifeline_fd: int | None = None,
        ready_fd: int | None = None,
    ) -> ProcessImage:
        """Compose one process: `report_fd` is where it writes its status; see `intake.options` for the others."""
        argv = [sys.executable, "-m", self.module, f"--report-fd={report_fd}"]
        inherited = [report_fd]
        if connection_row is not None:
            argv.append(f"--connection-row={connection_row}")
            inherited.append(connection_row.descriptor)
        for name, descriptor in (("lifeline", lifeline_fd), ("ready", ready_fd)):
            if descriptor is not None:
                argv.append(f"--{name}-fd={descriptor}")
                inherited.append(descriptor)
        for listener in self.listeners:
            argv.append(f"--socket-fd={listener.option}")
            inherited.append(listener.socket.fileno())
        if self.routes is not None:
            argv.append(f"--routes=/proc/self/fd/{self.routes.descriptor}")
            inherited.append(self.routes.descriptor)
        environ = environment.passed_variables(self.environment)
        return ProcessImage(argv=[*argv, *self.options], environ=environ, inherited=inherited)
