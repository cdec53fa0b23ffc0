"""aiohttp's server behind our own admission: which connections it gets, and for how long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus

from aiohttp import web

from maildefer.intake.accept_loop import AcceptLoop
from maildefer.intake.http import access_log
from maildefer.intake.http.admission import Admission, HttpConnection, problem
from maildefer.intake.http.unparsable import HttpHandler
from maildefer.intake.options import FrontEndOptions

_LINGER_SECONDS = 2.0  # for what still comes of a body that was refused
_CLEANUP_SECONDS = 0.5  # for connections that were dismissed already


class HttpService:
    """Serves an application on listening sockets, from `open` to `close`. Event loop only."""

    def __init__(self, application: web.Application, options: FrontEndOptions) -> None:
        application.on_response_prepare.append(_prepare_response)
        self._options = options
        self._runner = web.AppRunner(application, shutdown_timeout=_CLEANUP_SECONDS)
        self._accept_loops: list[AcceptLoop] = []

    async def open(self, sockets: Sequence[socket.socket]) -> Admission:
        """Accept connections from now on; returns what lets them in."""
        loop = asyncio.get_running_loop()
        await self._runner.setup()
        assert self._runner.server is not None
        make_handler = partial(
            HttpHandler,
            self._runner.server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # there is none: our own events tell it
            logger=access_log.logger(),
            auto_decompress=False,  # a small body may unpack to a huge one
            keepalive_timeout=self._options.idle_seconds,
            lingering_time=_LINGER_SECONDS,
        )
        self.admission = Admission(self._options, make_handler)
        refusal = problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry=True)
        for each in sockets:
            accept_loop = AcceptLoop(loop, each, self.admission.begin_connection, refusal=refusal)
            accept_loop.open()
            self._accept_loops.append(accept_loop)
        return self.admission

    async def close(self) -> None:
        """Accept no more, and let the requests in hand end within their time."""
        for accept_loop in self._accept_loops:
            accept_loop.close()
        await self.admission.connections.drain(self._options.drain_seconds)
        await self._runner.cleanup()


def begin_request(request: web.Request) -> None:
    """Note that a request's head is complete; called by whatever handles it, before anything else."""
    if (connection := _connection(request)) is not None:
        connection.begin_request(request.content)


def _end_request(request: web.Request) -> bool:
    """Note that a response, whatever it is, is about to be sent; True where it has to be the connection's last."""
    connection = _connection(request)
    return connection is not None and connection.end_request()


def _connection(request: web.Request) -> HttpConnection | None:
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol if isinstance(protocol, HttpConnection) else None


async def _prepare_response(request: web.Request, response: web.StreamResponse) -> None:
    if _end_request(request):
        response.force_close()
    response.headers.pop("Server", None)  # which names aiohttp and its version
