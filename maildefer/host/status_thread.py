"""A thread that answers status questions, for a process whose main thread has other things to do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from maildefer.host import status_socket


def answer_forever(listening: socket.socket, facts: Callable[[], dict[str, object]]) -> None:
    """Serve all who ask at a socket of `statussocket.listen`, until the process ends. Returns at once."""
    listening.setblocking(True)
    threading.Thread(target=_answer, args=(listening, facts), name="status", daemon=True).start()


def _answer(listening: socket.socket, facts: Callable[[], dict[str, object]]) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:  # closed, or no descriptor is free for who asks
            return
        status_socket.answer(connection, facts())
