"""A front end that is attacked: a real process, bare sockets, and what it has stored."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import processes
from maildefer.message.envelope import Envelope
from tests.support.front_end import ROOT, stored

GREETING = b"EHLO client.example\r\n"
ENVELOPE = b"MAIL FROM:<ann@example.org>\r\nRCPT TO:<post@osb.example>\r\n"
PATIENCE_SECONDS = 45.0  # less than the front end has with any client


class AttackedFrontEnd:
    """`python -m maildefer.intake` on a queue of its own; a context manager."""

    def __init__(
        self, place: Path, *arguments: str, queue: Path | None = None, routes: int | None = None
    ) -> None:
        """`routes` is the descriptor of a table."""
        self.queue = queue or place / "queue"
        self.log_path = place / "intake.log"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = self._listener.getsockname()[:2]
        self.arguments = arguments
        self._started_with = (place, arguments, routes)
        self.process = self._execute(*self._started_with)

    def restart(self) -> None:
        """After a kill, on the same socket, as a supervisor does."""
        self.process.wait(PATIENCE_SECONDS)
        self.process = self._execute(*self._started_with)

    def _execute(
        self, place: Path, arguments: tuple[str, ...], routes: int | None
    ) -> subprocess.Popen[bytes]:
        descriptor = self._listener.fileno()
        if routes is not None:
            arguments = (*arguments, "--routes", f"/proc/self/fd/{routes}")
        command = [sys.executable, "-m", "maildefer.intake", "--socket-fd", str(descriptor)]
        command += ["--queue", str(self.queue), "--log-format", "json", *arguments]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(
                command,
                pass_fds=[descriptor] if routes is None else [descriptor, routes],
                stdin=subprocess.DEVNULL,
                stderr=log,
                cwd=place,
                env=environ,
            )

    def __enter__(self) -> AttackedFrontEnd:
        try:
            eventually(
                lambda: "intake.listening" in self.log() or self.process.poll() is not None, "it listens"
            )
            assert self.process.poll() is None, self.log()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            processes.kill([self.process.pid] if self.process.poll() is None else [])

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def pids(self) -> list[int]:
        """The front end and its writer."""
        return processes.tree(self.process.pid)

    def memory(self) -> int:
        """What both processes have for themselves, in bytes."""
        return sum(map(processes.pss_bytes, self.pids()))

    def descriptors(self) -> int:
        """The front end's."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=PATIENCE_SECONDS)

    def speak(self, wire: bytes, *, quit: bool = True) -> bytes:
        """These bytes at once, and all that comes back until it closes."""
        with self.connect() as client:
            try:
                client.sendall(wire + b"QUIT\r\n" * quit)
                if not quit:
                    client.shutdown(socket.SHUT_WR)
            except ConnectionError:  # it has had enough: what it said may still be there
                pass
            return read_all(client)

    def send(self, data: bytes = b"Subject: a test\r\n\r\nHello\r\n") -> bytes:
        """One ordinary message; the reply to it."""
        return self.speak(GREETING + ENVELOPE + b"DATA\r\n" + data + b".\r\n").split(b"\r\n")[-3]

    def entries(self) -> list[tuple[Envelope | None, bytes]]:
        """What is in `new/`, envelope and message, oldest first."""
        return stored(self.queue)

    def drafts(self) -> list[str]:
        return os.listdir(self.queue / "tmp")


def read_all(client: socket.socket) -> bytes:
    """To the end; a reset is one too."""
    received = b""
    try:
        while data := client.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.01)
