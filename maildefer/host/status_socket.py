"""The local status question: `status\\n` to a UNIX stream socket, one JSON object back, until the end of file.

The sockets lie in the runtime directory, so asking never touches a mount.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maildefer.untrusted import record_in

QUESTION = b"status\n"
MOST_WAITING = 16
_LIMIT_BYTES = 16 << 20


def listen_at(path: str) -> socket.socket:
    """A listening, non-blocking socket at `path`, in the place of what a dead predecessor left there.

    Called by the process that holds the lock of the pid file which the socket is named for. Raises OSError.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:  # the ordinary case: a clean end takes it away
        pass
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    with _short(path) as address:
        sock.bind(address)
    sock.listen(MOST_WAITING)
    return sock


def answer_status(connection: socket.socket, status: dict[str, object]) -> None:
    """Send the status and close. Never blocks for a client that does not read: what does not fit is cut."""
    try:
        connection.setblocking(False)
        try:
            connection.recv(len(QUESTION))
        except BlockingIOError:  # not here yet: there is only one question
            pass
        data = json.dumps(status).encode()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data) + 4096)
        connection.send(data)
    except OSError:  # the client left
        pass
    finally:
        connection.close()


def answer_in_thread(listening: socket.socket, facts: Callable[[], dict[str, object]]) -> None:
    """Answer all who ask at a socket of `listen_at`, in a thread, until the process ends; returns at once.

    For a process whose main thread has other things to do.
    """
    listening.setblocking(True)
    threading.Thread(target=_answer_all, args=(listening, facts), name="status", daemon=True).start()


def ask_status(path: str, seconds: float = 2.0) -> dict[str, object]:
    """The status of the process that listens at `path`. Raises TimeoutError, OSError, UntrustedRecord."""
    deadline = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(seconds)
        with _short(path) as address:
            sock.connect(address)
        data = bytearray()
        try:
            sock.sendall(QUESTION)
            while len(data) < _LIMIT_BYTES:
                sock.settimeout(max(deadline - time.monotonic(), 0.001))
                chunk = sock.recv(65536)
                if not chunk:
                    break
                data += chunk
        except (BrokenPipeError, ConnectionResetError):  # answered and closed before it read the question
            data += _rest(sock) if not data else b""
    return record_in(bytes(data))


def _answer_all(listening: socket.socket, facts: Callable[[], dict[str, object]]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # closed, or no descriptor is free for a connection
            return
        answer_status(connection, facts())


def _rest(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_LIMIT_BYTES)
    except OSError:
        return b""


@contextmanager
def _short(path: str) -> Iterator[str]:
    """Yield a name of the path that fits into `sun_path`, whose 108 bytes a long runtime directory exceeds."""
    if len(os.fsencode(path)) < 100:
        yield path
        return
    descriptor = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{os.path.basename(path)}"
    finally:
        os.close(descriptor)
