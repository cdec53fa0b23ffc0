"""Listeners, which begin a session on each connection, after its PROXY header and TLS handshake."""

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
from maildefer.intake.options import FrontEndOptions, ListeningSocket, SocketProtocol, address_text
from maildefer.intake.smtp import proxy_protocol
from maildefer.intake.smtp.connection import HANDSHAKE_SECONDS
from maildefer.intake.smtp.lmtp import LmtpSession
from maildefer.intake.smtp.session import SmtpSession
from maildefer.intake.socket_transport import SocketTransport, suits

_HEADER_SECONDS = 10.0
# Connections that owe a PROXY header or a handshake, and are not counted with the others yet.
_MOST_PENDING = 1000


class SessionListener:
    """Begins sessions on one listening socket, from `open` to `close`."""

    def __init__(self, context: ServerContext, inherited: ListeningSocket) -> None:
        self._context = context
        self._protocol = inherited.protocol
        self._socket = socket.socket(fileno=inherited.fd)
        # In the clear it would mean nothing to a client that waits for a handshake.
        tls_first = inherited.protocol is SocketProtocol.SMTPS
        refusal = b"" if tls_first else f"{replies.TOO_MANY_CONNECTIONS}\r\n".encode()
        self._accept_loop = AcceptLoop(context.loop, self._socket, self._begin_connection, refusal=refusal)
        self._beginning: set[asyncio.Task[None]] = set()
        options = context.options
        self._pending_limits = ConnectionLimits(
            FrontEndOptions(
                max_connections=_MOST_PENDING,
                max_connections_per_client=options.max_connections_per_client,
                exempt_networks=options.exempt_networks,
            )
        )

    def __str__(self) -> str:
        return address_text(self._protocol, self._socket.getsockname())

    def open(self) -> None:
        """Accept connections."""
        self._accept_loop.open()

    def close(self) -> None:
        """Accept no more, and drop those that have not begun to speak."""
        self._accept_loop.close()
        for task in tuple(self._beginning):
            task.cancel()

    def _session(self, client: Client) -> SmtpSession:
        kind = LmtpSession if self._protocol is SocketProtocol.LMTP else SmtpSession
        return kind(self._context, client=client)

    def _begin_connection(self, sock: socket.socket, client: Client) -> None:
        """Begin a session; a connection that owes a PROXY header or a handshake first is pending until then."""
        proxied = self._context.security.proxies.has(client.address)
        pending = proxied or self._protocol is SocketProtocol.SMTPS
        if not pending and suits(self._context.loop):
            SocketTransport(self._context.loop, sock, self._session(client)).open()
            return
        address = "" if proxied else client.address  # a proxy's connections are those of many clients
        if pending and self._pending_limits.enter(address) is not None:
            sock.close()
            return
        task = self._context.loop.create_task(self._lead_in(sock, client, proxied=proxied))
        self._beginning.add(task)
        task.add_done_callback(partial(self._end_pending, address) if pending else self._beginning.discard)

    def _end_pending(self, address: str, task: asyncio.Task[None]) -> None:
        self._beginning.discard(task)
        self._pending_limits.leave(address)

    async def _lead_in(self, sock: socket.socket, client: Client, *, proxied: bool) -> None:
        address = client.address
        try:
            if proxied:
                client = await proxy_protocol.read(sock, _HEADER_SECONDS) or client
            await self._begin_session(sock, client)
        except proxy_protocol.BadHeader as fault:
            events.emit("intake.refused", client=address, reason=f"no PROXY header: {fault}")
            sock.close()
        except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
            reason = f"it has not begun: {str(fault) or 'nothing came'}"
            events.emit("intake.refused", client=address, reason=reason)
            sock.close()
        except BaseException:
            sock.close()
            raise

    async def _begin_session(self, sock: socket.socket, client: Client) -> None:
        loop, certificate = self._context.loop, self._context.security.certificate
        if self._protocol is not SocketProtocol.SMTPS:
            if suits(loop):
                SocketTransport(loop, sock, self._session(client)).open()
            else:
                await loop.connect_accepted_socket(lambda: self._session(client), sock)
            return
        assert certificate is not None
        await loop.connect_accepted_socket(
            lambda: self._session(client),
            sock,
            ssl=certificate.context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
