"""The monitor of a front end without a supervisor (`maildefer start`), kept by a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.pool.frontend.health_port import MONITOR, MONITOR_MODULE, bind_health
from maildefer.pool.frontend.intake_command import IntakeCommand
from maildefer.pool.frontend.listeners import WebListener

_AGAIN_SECONDS: Final = 30.0


class MonitorLauncher:
    """Keeps one monitor, which ends with its lifeline: so with this process, however that ends."""

    def __init__(self, config: Mapping[str, Any], folder: str, *, pidfile: str) -> None:
        self._config = config
        self._folder = folder
        self._options = [f"--pidfile={pidfile}"]
        self._closed = threading.Event()
        self._lifeline, self._held = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._keep, name=MONITOR, daemon=True).start()

    def close(self) -> None:
        """Let the monitor end. Called once."""
        self._closed.set()
        os.close(self._held)

    def _keep(self) -> None:
        """Listen, and execute it whenever it is not there; what fails is logged once, and tried again."""
        said, listener = "", None
        while not self._closed.is_set():
            try:
                listener = listener or bind_health(self._config, self._folder)
                self._execute(listener)
            except (ConfigurationError, OSError) as fault:
                if str(fault) != said:
                    said = str(fault)
                    events.emit("monitor.failed", error=said)
            self._closed.wait(_AGAIN_SECONDS)

    def _execute(self, listener: WebListener) -> None:
        """Execute it, and wait for its end."""
        report = os.memfd_create(MONITOR)  # which nobody reads
        command = IntakeCommand(module=MONITOR_MODULE, options=self._options, listeners=[listener])
        image = command.image(report_fd=report, lifeline_fd=self._lifeline)
        try:
            process = image.execute(cwd="/")
        finally:
            os.close(report)
        events.emit("child.started", kind=MONITOR, pid=process.pid, address=str(listener))
        code = process.wait()
        if not self._closed.is_set():
            events.emit("child.died", kind=MONITOR, pid=process.pid, how=f"exit {code}")
