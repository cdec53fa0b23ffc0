"""Connections to servers that are kept open for the next message, for a moment."""

from __future__ import annotations

import os
import smtplib
import threading
import time
from contextlib import suppress
from typing import Final, NamedTuple

from maildefer.message.outgoing.connection import KeptConnection, opened

_MOST_MESSAGES: Final = 100  # over one connection


class _Idle(NamedTuple):
    connection: KeptConnection
    until: float


class KeptConnections:
    """Idle connections of one process, by server. Any thread may call; a connection is one thread's at a time.

    A connection is closed after so many idle seconds, or a hundred messages, so that a server whose connections are few
    has them for others, too.
    """

    def __init__(self, *, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # the parent's, which goes on to use them

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[_Idle]] = {}
        self._closer: threading.Timer | None = None

    def take(self, server: str) -> KeptConnection | None:
        """Return an open connection to the server, ready for a message; None where there is none."""
        while (idle := self._pop(server)) is not None:
            if idle.connection.is_idle():
                return idle.connection
            idle.connection.close()
        return None

    def keep(self, server: str, connection: KeptConnection) -> None:
        """Keep a connection over which a message was sent or refused, or close it if it has had its share."""
        connection.messages += 1
        opened.pop(threading.get_ident(), None)  # others may use it next
        if connection.sock is None:
            return
        if connection.messages >= _MOST_MESSAGES or not self._idle_seconds:
            close(connection)
            return
        with self._lock:
            idle = _Idle(connection, time.monotonic() + self._idle_seconds)
            self._idle.setdefault(server, []).append(idle)
            self._set_closer()

    def close_all(self) -> None:
        self._close_idle(float("inf"))

    def _pop(self, server: str) -> _Idle | None:
        with self._lock:
            idle = self._idle.get(server)
            return idle.pop() if idle else None

    def _set_closer(self) -> None:
        if self._closer is None:
            self._closer = threading.Timer(self._idle_seconds, self._close_idle)
            self._closer.daemon = True
            self._closer.start()

    def _close_idle(self, now: float | None = None) -> None:
        """Close what has been idle for long enough; called by a thread of its own while any is kept."""
        now = time.monotonic() if now is None else now
        with self._lock:
            self._closer = None
            over = [idle for kept in self._idle.values() for idle in kept if idle.until <= now]
            left = {
                server: [idle for idle in kept if idle.until > now] for server, kept in self._idle.items()
            }
            self._idle = {server: kept for server, kept in left.items() if kept}
            if self._idle:
                self._set_closer()
        for idle in over:
            close(idle.connection)


def close(connection: smtplib.SMTP) -> None:
    """Say QUIT, without a wait for what it is answered, and close."""
    with suppress(OSError, smtplib.SMTPException):
        if connection.sock is not None:
            connection.putcmd("quit")
    connection.close()
