"""Connections from a listening socket, also when the process may open no more files.

The event loops' own servers log a traceback for each of 512 tries a second then, and leave the clients waiting for a
greeting. Here one descriptor is kept back: by it those who wait are told that there is no room, once a second.
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
_TELL_SECONDS: Final = 60.0
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class AcceptLoop:
    """One listening socket's, from `open` to `close`. Event loop only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        take: Callable[[socket.socket, Client], None],
        *,
        refusal: bytes,
    ) -> None:
        """`take` has each connection, and who it is from; `refusal` is for who can't have one."""
        self._loop = loop
        self._listener = listener
        self._take = take
        self._refusal = refusal
        self._spare: int | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._tell_at = 0.0

    def open(self) -> None:
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        self._keep_a_spare()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        if self._spare is not None:
            os.close(self._spare)

    def _accept(self) -> None:
        """All who wait, as far as there are descriptors."""
        for _ in range(BACKLOG):
            try:
                sock, peer = self._listener.accept()
            except (
                BlockingIOError,
                InterruptedError,
            ):  # another process of the front end may have been faster
                return
            except ConnectionAbortedError:
                continue
            except OSError as fault:
                self._turn_away(fault)
                return
            sock.setblocking(False)
            self._take(sock, _client(peer))

    def _turn_away(self, fault: OSError) -> None:
        """Whom nobody can take now; then wait."""
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE_SECONDS, self._go_on)
        refused = self._refuse_all() if fault.errno in _EXHAUSTED else 0
        if (now := self._loop.time()) >= self._tell_at:
            self._tell_at = now + _TELL_SECONDS
            reason = f"no connection can be taken: {fault.strerror or fault}"
            if fault.errno == errno.EMFILE:
                reason += "; raise the hard limit (ulimit -Hn, LimitNOFILE=), or lower max_connections"
            events.emit("intake.cramped", reason=reason, refused=refused)

    def _refuse_all(self) -> int:
        """By the descriptor that is kept for it; returns how many were told."""
        refused = 0
        if self._spare is not None:
            os.close(self._spare)
        while refused < BACKLOG:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # nobody waits any more, or somebody else has taken the descriptor
                break
            refused += 1
            with sock, suppress(OSError):
                sock.setblocking(False)
                sock.send(self._refusal)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16)  # what is left unread would reset the connection, and its refusal with it
        self._keep_a_spare()
        return refused

    def _keep_a_spare(self) -> None:
        try:
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # tried again at the next turn
            self._spare = None

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)


def _client(peer: object) -> Client:
    """Who has no address comes by a socket file."""
    return Client(address=plain_address(peer[0]), port=peer[1]) if isinstance(peer, tuple) else Client()
