"""SMTP on standard input and output (`sendmail -bs`), by an intake process on a socket of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Final

from maildefer.host import environment
from maildefer.maildir.layout import create_queue

_PATIENCE_SECONDS: Final = 30.0


def speak(queue: str) -> int:
    """Until either side hangs up; the exit code."""
    folder = tempfile.mkdtemp(prefix="maildefer-")
    path = os.path.join(folder, "smtp")
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen(1)
        theirs, lifeline = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-m", "maildefer.intake", "--queue", create_queue(queue).path]
        command += ["--socket-fd", str(listener.fileno()), "--lifeline-fd", str(theirs)]
        intake = subprocess.Popen(
            command,
            pass_fds=(listener.fileno(), theirs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment.listed(),
        )
        os.close(theirs)
        try:
            return 0 if _pump(path) else 75
        finally:
            os.close(lifeline)
            intake.terminate()
            intake.wait()
    finally:
        listener.close()
        with suppress(OSError):
            os.unlink(path)
        os.rmdir(folder)


def _pump(path: str) -> bool:
    """Whether the server ever said something."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE_SECONDS)
        client.connect(path)
        spoken = client.recv(4096)
        client.settimeout(None)
        if not spoken:
            return False
        threading.Thread(target=_feed, args=(client,), name="stdin", daemon=True).start()
        while spoken:
            sys.stdout.buffer.write(spoken)
            sys.stdout.buffer.flush()
            spoken = client.recv(4096)
    return True


def _feed(client: socket.socket) -> None:
    while data := os.read(0, 65536):
        client.sendall(data)
    client.shutdown(socket.SHUT_WR)
