"""Accepts connections from a listening socket, also when the process may open no more files.

The event loops' own servers log a traceback for each of 512 tries a second then, and leave the clients waiting for a
greeting. Here one descriptor is kept in reserve: with it waiting connections are refused, once a second.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from maildefer import events
from maildefer.intake.client import Client, plain_address

BACKLOG: Final = 512
_PAUSE_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 60.0
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class AcceptLoop:
    """Accepts from one listening socket, from `open` to `close`. Event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        begin: Callable[[socket.socket, Client], None],
        *,
        refusal: bytes,
    ) -> None:
        """`begin` is called with each connection and its client; `refusal` is sent where none can be accepted."""
        self._loop = loop
        self._listener = listener
        self._begin = begin
        self._refusal = refusal
        self._reserve: int | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._log_at = 0.0

    def open(self) -> None:
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        if self._listener.family != socket.AF_UNIX:  # connections have it from their listener (tcp(7))
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._open_reserve()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        if self._reserve is not None:
            os.close(self._reserve)

    def _accept(self) -> None:
        """Accept all connections that wait, as far as there are descriptors."""
        for _ in range(BACKLOG):
            try:
                sock, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError):  # another process may have been faster
                return
            except ConnectionAbortedError:
                continue
            except OSError as fault:
                self._pause_accepting(fault)
                return
            sock.setblocking(False)
            self._begin(sock, _client(peer))

    def _pause_accepting(self, fault: OSError) -> None:
        """Refuse what waits where descriptors are exhausted, and accept again after a pause."""
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._resume)
        refused = self._refuse_all() if fault.errno in _EXHAUSTED else 0
        if (now := self._loop.time()) >= self._log_at:
            self._log_at = now + _LOG_SECONDS
            reason = f"no connection can be taken: {fault.strerror or fault}"
            if fault.errno == errno.EMFILE:
                reason += "; raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower max_connections"
            events.emit("intake.cramped", reason=reason, refused=refused)

    def _refuse_all(self) -> int:
        """Refuse all connections that wait, by the reserve descriptor; returns how many."""
        refused = 0
        if self._reserve is not None:
            os.close(self._reserve)
        while refused < BACKLOG:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # none waits any more, or the descriptor was used elsewhere
                break
            refused += 1
            with sock, suppress(OSError):
                sock.setblocking(False)
                sock.send(self._refusal)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16)  # what is left unread would reset the connection, and its refusal with it
        self._open_reserve()
        return refused

    def _open_reserve(self) -> None:
        try:
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # tried again at the next turn
            self._reserve = None

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)


def _client(peer: object) -> Client:
    """The client at an address of accept(2); it has none where it comes by a socket file."""
    return Client(address=plain_address(peer[0]), port=peer[1]) if isinstance(peer, tuple) else Client()
