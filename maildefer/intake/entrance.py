"""From a door's listening socket to a session."""

from __future__ import annotations

import asyncio
import errno
import socket
from functools import partial

from maildefer import events
from maildefer.intake import proxy
from maildefer.intake.client import Client, plain_address
from maildefer.intake.connection import HANDSHAKE_SECONDS
from maildefer.intake.doors import Door, Kind
from maildefer.intake.guests import Guests
from maildefer.intake.hall import Hall
from maildefer.intake.limits import Limits
from maildefer.intake.lmtp import LmtpSession
from maildefer.intake.session import Session

BACKLOG = 512
_HEADER_SECONDS = 10.0
_MOST_WAITING = 1000  # for a PROXY header or a handshake; they are not in yet
_FULL_SECONDS = 1.0


class Entrance:
    """One door, open from `open` to `close`."""

    def __init__(self, hall: Hall, door: Door) -> None:
        self._hall = hall
        self._kind = door.kind
        self._listener = socket.socket(fileno=door.fd)
        self._close = self._listener.close
        self._waiting: set[asyncio.Task[None]] = set()
        options = hall.options
        self._lobby = Guests(
            Limits(
                max_connections=_MOST_WAITING,
                max_connections_per_client=options.max_connections_per_client,
                exempt_networks=options.exempt_networks,
            )
        )

    def __str__(self) -> str:
        name = self._listener.getsockname()
        return f"{self._kind}://{name[0]}:{name[1]}" if isinstance(name, tuple) else f"{self._kind}:{name}"

    async def open(self) -> None:
        """Take connections."""
        if self._hall.guard.proxies or self._kind is Kind.SMTPS:
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
        return kind(self._hall, client=client)

    async def _receive(self) -> None:
        """For what a session does not begin with: the event loop's own server would not tell a header, nor bound what
        waits for a handshake, nor take a new certificate.
        """
        while True:
            try:
                sock, peer = await self._hall.loop.sock_accept(self._listener)
            except OSError as fault:
                if fault.errno != errno.ECONNABORTED:  # no descriptors, no memory
                    await asyncio.sleep(_FULL_SECONDS)
                continue
            address = plain_address(peer[0]) if isinstance(peer, tuple) else ""
            proxied = self._hall.guard.proxies.has(address)
            for_itself = "" if proxied else address  # a proxy comes for many
            if self._lobby.enter(for_itself) is not None:
                sock.close()
                continue
            task = self._hall.loop.create_task(self._lead_in(sock, address, proxied=proxied))
            self._waiting.add(task)
            task.add_done_callback(partial(self._leave_lobby, for_itself))

    def _leave_lobby(self, address: str, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._lobby.leave(address)

    async def _lead_in(self, sock: socket.socket, address: str, *, proxied: bool) -> None:
        try:
            client = None
            if proxied:
                client = await proxy.read(sock, _HEADER_SECONDS)
            await self._begin(sock, client)
        except proxy.BadHeader as fault:
            events.emit("intake.refused", client=address, reason=f"no PROXY header: {fault}")
            sock.close()
        except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
            events.emit(
                "intake.refused", client=address, reason=f"it has not begun: {fault or 'nothing came'}"
            )
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _begin(self, sock: socket.socket, client: Client | None) -> None:
        loop, certificate = self._hall.loop, self._hall.guard.certificate
        if self._kind is not Kind.SMTPS:
            await loop.connect_accepted_socket(lambda: self._session(client), sock)
            return
        assert certificate is not None
        await loop.connect_accepted_socket(
            lambda: self._session(client),
            sock,
            ssl=certificate.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
