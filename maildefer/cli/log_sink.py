"""The development sink's receiver: an intake process on a socket that this one bound (I11)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host import environment
from maildefer.maildir.layout import create_queue

_PATIENCE_SECONDS = 30.0


class Sink:
    """Listens once constructed; `start` returns, `close` ends it. Raises ConfigurationError for an address in use."""

    def __init__(self, host: str, port: int, queue: str) -> None:
        self.queue_dir = create_queue(queue).path
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as fault:
            raise ConfigurationError(
                f"can't listen on {host}:{port}: {fault.strerror}: stop what does, or give another --port"
            ) from fault
        self._lifeline: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    def start(self) -> None:
        theirs, self._lifeline = os.pipe2(os.O_CLOEXEC)
        listener = self._socket.fileno()
        command = [sys.executable, "-m", "maildefer.intake", "--queue", self.queue_dir]
        command += ["--socket-fd", str(listener), "--lifeline-fd", str(theirs)]
        self._process = subprocess.Popen(command, pass_fds=(listener, theirs), env=environment.listed())
        os.close(theirs)
        self._await_greeting()

    def _await_greeting(self) -> None:
        """The socket takes connections from the start; only a greeting tells that somebody answers them."""
        with socket.create_connection(self._socket.getsockname()[:2], timeout=_PATIENCE_SECONDS) as client:
            client.settimeout(0.1)
            for _ in range(int(_PATIENCE_SECONDS / 0.1)):
                try:
                    if client.recv(4) == b"220 ":
                        return
                except TimeoutError:
                    pass
                if self.ended() is not None:
                    break
        raise MaildeferError(f"nobody answers on {self.address}: see the intake process's output above")

    def ended(self) -> int | None:
        """The exit code of the intake process if it has one already."""
        return None if self._process is None else self._process.poll()

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._socket.close()
