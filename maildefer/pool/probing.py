"""Asking a child what the application is, since the supervisor imports no user code."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

from maildefer.errors import ConfigurationError
from maildefer.maildir.system import boottime
from maildefer.pool.children import spawn

LIMIT_SECONDS = 60.0


class Probe:
    """One look at the application, under way in a child; polled by the supervisor's loop, and never waited for."""

    def __init__(self, project: str, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = spawn([sys.executable, "-m", "maildefer.pool.probe"], cwd=project, stdout=writer)
        os.close(writer)
        os.set_blocking(self._reader, False)
        self._data = b""
        self._limit_seconds = limit_seconds
        self._deadline = boottime() + limit_seconds
        self._closed = False

    @property
    def descriptor(self) -> int:
        return self._reader

    def poll(self) -> dict[str, Any] | None:
        """The application as plain data once it is known; raises ConfigurationError with the reason if it is broken."""
        if boottime() > self._deadline:
            self.end()
            raise ConfigurationError(
                f"the application was not loaded within {self._limit_seconds:g} s: what does it wait for?"
            )
        while True:
            try:
                chunk = os.read(self._reader, 65536)
            except BlockingIOError:
                return None
            if not chunk:
                break
            self._data += chunk
        self.end()
        return self._parsed()

    def wait(self) -> dict[str, Any]:
        """The same at start, when there is nothing else to do."""
        while True:
            select.select([self._reader], [], [], 0.5)
            if (found := self.poll()) is not None:
                os.waitpid(self.pid, 0)
                return found

    def end(self) -> None:
        """Close; a probe that still runs is killed. The supervisor reaps it."""
        if not self._closed:
            self._closed = True
            os.close(self._reader)
            if boottime() > self._deadline:
                try:
                    os.kill(self.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def _parsed(self) -> dict[str, Any]:
        try:
            found = json.loads(self._data)
        except ValueError:
            raise ConfigurationError("the application ended its own process while being loaded") from None
        if "error" in found:
            error = ConfigurationError(found["error"])
            error.add_note(found.get("detail", ""))
            raise error
        return dict(found)
