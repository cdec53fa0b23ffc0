"""A monitor as a real process, and a starter for it to ask: a status socket with a record in a runtime directory."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maildefer.host import runtime_dir, status_socket
from maildefer.host.identity import start_time
from maildefer.host.runtime_dir import RuntimeRecord
from tests.support.front_end import ROOT, SECONDS, wait_until


class Starter:
    """What stands for a supervisor: this process. Its `status` is what it says of itself, at each question."""

    def __init__(self, folder: Path, queues: tuple[str, ...] = ()) -> None:
        self.pidfile = str(folder / "run" / "pool.pid")
        self.status: dict[str, Any] = {}
        self.questions = 0
        self.silent = threading.Event()
        path = runtime_dir.socket_path(self.pidfile)
        self._socket = status_socket.listen_at(path)
        status_socket.answer_in_thread(self._socket, self._answer)
        runtime_dir.write_record(
            RuntimeRecord(
                pid=os.getpid(),
                start_time=start_time(os.getpid()) or 0,
                kind="supervise",
                pidfile=self.pidfile,
                started=0.0,
                queues=queues,
                project=str(folder),
                status_socket=path,
            )
        )

    def _answer(self) -> dict[str, Any]:
        self.questions += 1
        while self.silent.is_set():
            threading.Event().wait(0.01)
        return self.status


class Monitor:
    """The process, which answers on a port."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
        self.process = process
        self.port = port
        self.log_path = log_path

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return get(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS), path, **headers)


@contextmanager
def monitoring(pidfile: str, log: Path, *options: str, host: str = "127.0.0.1") -> Iterator[Monitor]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family, backlog=512) as listener,
        open(log, "ab") as stderr,
    ):
        command = [sys.executable, "-m", "maildefer.monitoring", "--pidfile", pidfile, *options]
        process = subprocess.Popen(
            [*command, "--socket-fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stderr=stderr,
            cwd=ROOT,
        )
        port = listener.getsockname()[1]
    try:
        wait_until(lambda: "monitor.listening" in log.read_text() or process.poll() is not None)
        yield Monitor(process, port, log)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0, log.read_text()


class FileConnection(http.client.HTTPConnection):
    """HTTP by a socket file."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(self._path))


def get(connection: http.client.HTTPConnection, path: str, **headers: str) -> tuple[int, str]:
    """Its status and text."""
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
