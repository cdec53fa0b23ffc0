"""From a door's listening socket to a session."""

from __future__ import annotations

import asyncio
import errno
import socket

from maildefer import events
from maildefer.intake import proxy
from maildefer.intake.client import Client, plain_address
from maildefer.intake.doors import Door, Kind
from maildefer.intake.hall import Hall
from maildefer.intake.lmtp import LmtpSession
from maildefer.intake.session import Session

BACKLOG = 512
_HEADER_SECONDS = 10.0
_MOST_WAITING = 1000  # for a PROXY header
_FULL_SECONDS = 1.0


class Entrance:
    """One door, open from `open` to `close`."""

    def __init__(self, hall: Hall, door: Door) -> None:
        self._hall = hall
        self._kind = door.kind
        self._listener = socket.socket(fileno=door.fd)
        self._close = self._listener.close
        self._waiting: set[asyncio.Task[None]] = set()

    def __str__(self) -> str:
        name = self._listener.getsockname()
        return f"{self._kind}://{name[0]}:{name[1]}" if isinstance(name, tuple) else f"{self._kind}:{name}"

    async def open(self) -> None:
        """Take connections."""
        if self._hall.guard.proxies:
            self._listener.setblocking(False)
            self._listener.listen(BACKLOG)
            task = self._hall.loop.create_task(self._receive())
            self._waiting.add(task)
        else:
            server = await self._hall.loop.create_server(self._session, sock=self._listener, backlog=BACKLOG)
            self._close = server.close

    def close(self) -> None:
        self._close()
        for task in self._waiting:
            task.cancel()

    def _session(self, client: Client | None = None) -> Session:
        kind = LmtpSession if self._kind is Kind.LMTP else Session
        return kind(self._hall, tls_first=self._kind is Kind.SMTPS, client=client)

    async def _receive(self) -> None:
        """The event loop's own server would read what comes first; here that may be a proxy's header."""
        while True:
            try:
                sock, peer = await self._hall.loop.sock_accept(self._listener)
            except OSError as fault:
                if fault.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    await asyncio.sleep(_FULL_SECONDS)
                continue
            if len(self._waiting) >= _MOST_WAITING:
                sock.close()
                continue
            task = self._hall.loop.create_task(self._lead_in(sock, peer))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _lead_in(self, sock: socket.socket, peer: object) -> None:
        address = plain_address(peer[0]) if isinstance(peer, tuple) else ""
        try:
            client = None
            if self._hall.guard.proxies.has(address):
                client = await proxy.read(sock, _HEADER_SECONDS)
            await self._hall.loop.connect_accepted_socket(lambda: self._session(client), sock)
        except (proxy.BadHeader, OSError, TimeoutError) as fault:
            events.emit("intake.refused", client=address, reason=f"no PROXY header: {fault}")
            sock.close()
        except BaseException:
            sock.close()
            raise
