"""SMTP on standard input and output (`sendmail -bs`), by an intake process on a socket file of its own."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from typing import Final

from maildefer.intake.options import SocketProtocol
from maildefer.maildir.layout import create_queue
from maildefer.pool.frontend.launcher import IntakeLauncher
from maildefer.pool.frontend.listeners import SmtpListener, bound_file

_GREETING_SECONDS: Final = 30.0


def serve_stdio(queue: str) -> int:
    """Pass on what either side says until one hangs up; returns the exit code.

    Raises QueueError's kinds, and MaildeferError when the intake process does not come up.
    """
    with tempfile.TemporaryDirectory(prefix="maildefer-") as folder:
        path = os.path.join(folder, "smtp")
        with bound_file(path) as listener:
            launcher = IntakeLauncher([SmtpListener(listener, SocketProtocol.SMTP)], create_queue(queue).path)
            try:
                launcher.execute()
                launcher.await_ready()
                return 0 if _pass_on(path) else 75
            finally:
                launcher.close()


def _pass_on(path: str) -> bool:
    """Whether the server ever said something."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_GREETING_SECONDS)
        client.connect(path)
        said = client.recv(4096)
        client.settimeout(None)
        if not said:
            return False
        threading.Thread(target=_send_stdin, args=(client,), name="stdin", daemon=True).start()
        while said:
            sys.stdout.buffer.write(said)
            sys.stdout.buffer.flush()
            said = client.recv(4096)
    return True


def _send_stdin(client: socket.socket) -> None:
    while data := os.read(0, 65536):
        client.sendall(data)
    client.shutdown(socket.SHUT_WR)
