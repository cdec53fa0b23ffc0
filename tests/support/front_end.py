"""A front end of a test: a real process, real SMTP."""

from __future__ import annotations

import os
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from maildefer.message.envelope import Envelope, split

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60.0


class FrontEnd:
    """A running intake process, and what it has put into its queue."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, queue: Path, log: Path) -> None:
        self.process = process
        self.port = port
        self.queue = queue
        self.log_path = log

    def connect(self) -> smtplib.SMTP:
        return smtplib.SMTP("127.0.0.1", self.port, local_hostname="client.example", timeout=SECONDS)

    def dial(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def speak(self, wire: bytes) -> bytes:
        """Bare bytes in, all replies out; QUIT is added."""
        with self.dial() as client:
            client.sendall(wire + b"QUIT\r\n")
            return b"".join(iter(lambda: client.recv(65536), b""))

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def entries(self) -> list[tuple[Envelope | None, bytes]]:
        return stored(self.queue)


def stored(queue: Path) -> list[tuple[Envelope | None, bytes]]:
    """What waits there, in order of name, each with its envelope."""
    found = []
    for name in sorted(os.listdir(queue / "new")):
        data = (queue / "new" / name).read_bytes()
        envelope, offset = split(data, name)
        found.append((envelope, data[offset:]))
    return found


@contextmanager
def front_end(
    folder: Path,
    *arguments: str,
    kind: str = "smtp",
    listener: socket.socket | None = None,
    inherited: tuple[int, ...] = (),
) -> Iterator[FrontEnd]:
    """In that working directory; ended with the block. `kind` is what it speaks: smtp, smtps, lmtp."""
    queue, log = folder / "queue", folder / "log"
    with (
        listener or socket.create_server(("127.0.0.1", 0), backlog=64) as listener,
        open(log, "ab") as stderr,
    ):
        port = listener.getsockname()[1] if listener.family != socket.AF_UNIX else 0
        command = [sys.executable, "-m", "maildefer.intake", "--socket-fd", f"{listener.fileno()}:{kind}"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [*command, "--queue", str(queue), *arguments],
            pass_fds=[listener.fileno(), *inherited],
            stderr=stderr,
            cwd=folder,
            env=environ,
        )
    try:
        wait_until(lambda: b"intake.listening" in log.read_bytes() or process.poll() is not None)
        yield FrontEnd(process, port, queue, log)
    finally:
        process.terminate()
        process.wait(SECONDS)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
