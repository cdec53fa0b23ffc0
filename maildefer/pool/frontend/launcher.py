"""The intake process of a program without a supervisor: of a boot module, of `maildefer log`, of `sendmail -bs`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Final

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.host.linux.readiness import await_readable
from maildefer.pool.frontend.intake_command import BoundSocket, IntakeCommand, RoutesMemory
from maildefer.pool.frontend.status_report import read_report
from maildefer.untrusted import UntrustedRecord

_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 15.0


class IntakeLauncher:
    """Keeps one intake process at a time, which ends with its lifeline: so with this process, however that ends."""

    def __init__(
        self,
        listeners: Sequence[BoundSocket],
        queue: str,
        arguments: Sequence[str] = (),
        environment: Sequence[str] = (),
    ) -> None:
        """`arguments` are options besides the queue, `environment` variables besides those of the list."""
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self._listeners = listeners
        self._options = ["--queue", queue, *arguments]
        self._environment = environment
        self._routes: RoutesMemory | None = None
        self._lifeline: int | None = None
        self._ready: int | None = None
        self._report = os.memfd_create("report")

    def write_routes(self, patterns: list[str]) -> None:
        """Write the patterns of the routes whose mail is accepted; until this is called, all mail is accepted."""
        if self._routes is None:
            self._routes = RoutesMemory()
        self._routes.write([{"pattern": pattern} for pattern in patterns])

    def execute(self) -> None:
        """Start the process."""
        self._close_pipes()
        lifeline, self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._ready, ready = os.pipe2(os.O_CLOEXEC)
        os.ftruncate(self._report, 0)
        image = IntakeCommand(
            options=self._options,
            listeners=self._listeners,
            routes=self._routes,
            environment=self._environment,
        ).image(report_fd=self._report, lifeline_fd=lifeline, ready_fd=ready)
        try:
            self.process = image.execute()
        finally:
            os.close(lifeline)
            os.close(ready)
        self.began = time.monotonic()

    def await_ready(self) -> None:
        """Return once it takes connections. Raises MaildeferError when it does not come up."""
        assert self._ready is not None
        assert self.process is not None
        if not await_readable(self._ready, _START_SECONDS):
            raise MaildeferError(f"the process that takes mail was not ready within {_START_SECONDS:.0f} s")
        if not os.read(self._ready, 1):  # it has ended
            code = self.process.wait(_END_SECONDS)
            raise MaildeferError(f"the process that takes mail ended with {code}: see its output above")

    def ended(self) -> int | None:
        """The exit code of a process that has ended; None while it runs, or before its start."""
        return None if self.process is None else self.process.poll()

    def facts(self) -> dict[str, Any]:
        """What the process says of itself, for `maildefer status`."""
        address = " ".join(map(str, self._listeners))
        pid = {} if self.process is None else {"pid": self.process.pid}
        return {"kind": "intake", "address": address, **self._reported(), **pid}

    def _reported(self) -> dict[str, object]:
        """Read the report of the process; a process whose report is invalid is killed, and has no facts."""
        try:
            return read_report(self._report).facts()
        except UntrustedRecord as fault:
            if self.process is not None and self.process.poll() is None:
                reason = f"its report {fault}"
                events.emit("child.misbehaved", kind="intake", pid=self.process.pid, reason=reason)
                self.process.kill()
            return {}

    def reload(self) -> None:
        """Let the process read its files again: routes, certificate, passwords."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Let the process finish the transactions in hand, and end. May be called twice."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close_pipes()
        if self._routes is not None:
            self._routes.close()
            self._routes = None
        if self._report >= 0:
            os.close(self._report)
            self._report = -1

    def _close_pipes(self) -> None:
        for descriptor in (self._lifeline, self._ready):
            if descriptor is not None:
                os.close(descriptor)
        self._lifeline = self._ready = None
