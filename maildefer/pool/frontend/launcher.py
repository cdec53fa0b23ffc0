"""The intake process of a front end in a boot module: executed anew, so that no handler code is in it (I11)."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.host import environment as variables
from maildefer.intake.startup import EARLY_SIGNALS
from maildefer.pool.fork import read_only_memory
from maildefer.pool.frontend.listeners import SmtpListener
from maildefer.pool.frontend.status_report import read_report
from maildefer.untrusted import UntrustedRecord

_START_SECONDS = 30.0
_END_SECONDS = 15.0


class IntakeLauncher:
    """One process at a time. It ends with its lifeline, so with us, however we end."""

    def __init__(
        self,
        listeners: Sequence[SmtpListener],
        queue: str,
        arguments: Sequence[str],
        environment: Sequence[str] = (),
    ) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self._listeners = listeners
        self._arguments = ["--queue", queue, *arguments]
        self._environment = environment  # variables besides those of the list
        self._routes: tuple[int, int] | None = None  # a file in memory, which the process reads again at HUP
        self._lifeline: int | None = None
        self._ready: int | None = None
        self._report = os.memfd_create("report")

    def write_routes(self, patterns: list[str]) -> None:
        """Whose mail is taken; until this has been called, everybody's is."""
        if self._routes is None:
            self._routes = read_only_memory("routes")
        data = json.dumps({"routes": [{"pattern": pattern} for pattern in patterns]}).encode()
        writer, _ = self._routes
        before = os.fstat(writer).st_size
        os.pwrite(writer, data.ljust(before), 0)  # never shorter for a moment: it may be reading
        os.ftruncate(writer, len(data))

    def execute(self) -> None:
        """Start it."""
        self._close_pipes()
        theirs, self._lifeline = os.pipe2(os.O_CLOEXEC)
        self._ready, announced = os.pipe2(os.O_CLOEXEC)
        os.ftruncate(self._report, 0)
        inherited = [
            theirs,
            announced,
            self._report,
            *(listener.socket.fileno() for listener in self._listeners),
        ]
        command = [sys.executable, "-m", "maildefer.intake", *self._arguments]
        command += ["--lifeline-fd", str(theirs), "--ready-fd", str(announced)]
        command += ["--report-fd", str(self._report)]
        for listener in self._listeners:
            command += ["--socket-fd", listener.option]
        if self._routes is not None:
            _, reader = self._routes
            command += ["--routes", f"/proc/self/fd/{reader}"]
            inherited.append(reader)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, EARLY_SIGNALS)  # the process inherits it
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stderr=events.descriptor(),
                env=variables.listed(self._environment),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(theirs)
            os.close(announced)
        self.began = time.monotonic()

    def await_ready(self) -> None:
        """Return once it takes connections. Raises MaildeferError when it does not come up."""
        assert self._ready is not None
        assert self.process is not None
        if not select.select([self._ready], [], [], _START_SECONDS)[0]:
            raise MaildeferError(f"the process that takes mail was not ready within {_START_SECONDS:.0f} s")
        if not os.read(self._ready, 1):  # it has ended
            raise MaildeferError(f"the process that takes mail ended with {self.process.wait(_END_SECONDS)}")

    def facts(self) -> dict[str, Any]:
        """What the process says of itself, for `maildefer status`."""
        address = " ".join(map(str, self._listeners))
        pid = {} if self.process is None else {"pid": self.process.pid}
        return {"kind": "intake", "address": address, **self._reported(), **pid}

    def _reported(self) -> dict[str, object]:
        """Nothing of one that reports nonsense: it dies for it."""
        try:
            return read_report(self._report).facts()
        except UntrustedRecord as fault:
            if self.process is not None and self.process.poll() is None:
                reason = f"its report {fault}"
                events.emit("child.misbehaved", kind="intake", pid=self.process.pid, reason=reason)
                self.process.kill()
            return {}

    def reload(self) -> None:
        """It is to read its files again: routes, certificate, passwords."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Let it finish the transactions in hand. May be called twice."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close_pipes()
        if self._routes is not None:
            for descriptor in self._routes:
                os.close(descriptor)
            self._routes = None
        if self._report >= 0:
            os.close(self._report)
            self._report = -1

    def _close_pipes(self) -> None:
        for descriptor in (self._lifeline, self._ready):
            if descriptor is not None:
                os.close(descriptor)
        self._lifeline = self._ready = None
