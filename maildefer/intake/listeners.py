"""From a door's listening socket to a session."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.accept_loop import AcceptLoop
from maildefer.intake.access.connection_limits import ConnectionLimits
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.limits import Limits
from maildefer.intake.listening_sockets import ListeningSocket, SocketProtocol
from maildefer.intake.smtp import proxy_protocol
from maildefer.intake.smtp.connection import HANDSHAKE_SECONDS
from maildefer.intake.smtp.lmtp import LmtpSession
from maildefer.intake.smtp.session import SmtpSession

_HEADER_SECONDS = 10.0
_MOST_WAITING = 1000  # for a PROXY header or a handshake; they are not in yet


class SessionListener:
    """One door, open from `open` to `close`."""

    def __init__(self, hall: ServerContext, door: ListeningSocket) -> None:
        self._hall = hall
        self._kind = door.kind
        self._listener = socket.socket(fileno=door.fd)
        # In the clear it would mean nothing to a client that waits for a handshake.
        refusal = b"" if door.kind is SocketProtocol.SMTPS else f"{replies.TOO_MANY_CONNECTIONS}\r\n".encode()
        self._acceptor = AcceptLoop(hall.loop, self._listener, self._come, refusal=refusal)
        self._waiting: set[asyncio.Task[None]] = set()
        options = hall.options
        self._lobby = ConnectionLimits(
            Limits(
                max_connections=_MOST_WAITING,
                max_connections_per_client=options.max_connections_per_client,
                exempt_networks=options.exempt_networks,
            )
        )

    def __str__(self) -> str:
        name = self._listener.getsockname()
        return f"{self._kind}://{name[0]}:{name[1]}" if isinstance(name, tuple) else f"{self._kind}:{name}"

    def open(self) -> None:
        """Take connections."""
        self._acceptor.open()

    def close(self) -> None:
        self._acceptor.close()
        for task in tuple(self._waiting):
            task.cancel()

    def _session(self, client: Client) -> SmtpSession:
        kind = LmtpSession if self._kind is SocketProtocol.LMTP else SmtpSession
        return kind(self._hall, client=client)

    def _come(self, sock: socket.socket, client: Client) -> None:
        """Who has to begin with a PROXY header or a handshake waits for it in the lobby."""
        proxied = self._hall.security.proxies.has(client.address)
        waits = proxied or self._kind is SocketProtocol.SMTPS
        for_itself = "" if proxied else client.address  # a proxy comes for many
        if waits and self._lobby.enter(for_itself) is not None:
            sock.close()
            return
        task = self._hall.loop.create_task(self._lead_in(sock, client, proxied=proxied))
        self._waiting.add(task)
        task.add_done_callback(partial(self._leave_lobby, for_itself) if waits else self._waiting.discard)

    def _leave_lobby(self, address: str, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._lobby.leave(address)

    async def _lead_in(self, sock: socket.socket, client: Client, *, proxied: bool) -> None:
        address = client.address
        try:
            if proxied:
                client = await proxy_protocol.read(sock, _HEADER_SECONDS) or client
            await self._begin(sock, client)
        except proxy_protocol.BadHeader as fault:
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

    async def _begin(self, sock: socket.socket, client: Client) -> None:
        loop, certificate = self._hall.loop, self._hall.security.certificate
        if self._kind is not SocketProtocol.SMTPS:
            await loop.connect_accepted_socket(lambda: self._session(client), sock)
            return
        assert certificate is not None
        await loop.connect_accepted_socket(
            lambda: self._session(client),
            sock,
            ssl=certificate.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
