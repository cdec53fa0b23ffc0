"""Limits between a connection and aiohttp: which connections are let in, and how long a request may take to begin.

Not all versions of aiohttp have a limit for either. The time of a body is limited by `push_endpoint`, which reads it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol, cast

from maildefer.intake.access.connection_limits import ConnectionLimits, LimitReached, OpenConnections
from maildefer.intake.client import Client
from maildefer.intake.options import FrontEndOptions
from maildefer.intake.smtp.timeouts import Timeouts

RETRY_SECONDS: Final = 30
# For a response to be read: to close at once would discard it with what still comes.
_LINGER_SECONDS: Final = 1.0
_MOST_LINGERING: Final = 100
_CLOSING: Final = "closing; try again later"


class RequestBody(Protocol):
    """The body of a request, as aiohttp reads it."""

    def is_eof(self) -> bool:
        """Whether all of it has come."""

    def set_exception(self, exc: BaseException) -> None:
        """Raise that where the body is read."""

    def feed_eof(self) -> None:
        """Note that nothing more of it will come."""


class BodyCutOff(ConnectionError):
    """The client has shut down its side in the middle of a body."""


class Admission:
    """Lets connections in, and holds what they share. Event loop only."""

    def __init__(self, options: FrontEndOptions, make_handler: Callable[[], asyncio.Protocol]) -> None:
        """`make_handler` makes the protocol that serves a connection."""
        self.options = options
        self.connections = OpenConnections(ConnectionLimits(options, options.connection_row))
        self.make_handler = make_handler
        self.lingering = 0
        self._beginning: set[asyncio.Task[object]] = set()

    def begin_connection(self, sock: socket.socket, client: Client) -> None:
        """Serve a connection that has been accepted."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(lambda: HttpConnection(self, client, loop), sock)
        )
        self._beginning.add(task)  # the event loop holds only weak references
        task.add_done_callback(self._beginning.discard)


class HttpConnection(asyncio.Protocol):
    """A connection, with aiohttp's handler behind it. It is notified when a request begins, and when it is answered."""

    def __init__(self, admission: Admission, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._admission = admission
        self._client = client
        self._loop = loop
        self._handler: asyncio.Protocol | None = None  # None: it was not let in
        self._timeouts = Timeouts(loop, admission.options, self._end_of_time)
        self._in_request = self._in_head = False
        self._body: RequestBody | None = None
        self._half_closed = False  # the client sends no more
        self._lingering: asyncio.TimerHandle | None = None

    def begin_request(self, body: RequestBody) -> None:
        """Note that a request's head is complete: its body has a time of its own."""
        self._in_request, self._in_head = True, False
        self._body = body
        self._timeouts.line_ends()

    def end_request(self) -> bool:
        """Note that its response is about to be sent; True where the client may not send another request."""
        self._in_request = self._in_head = False
        self._timeouts.line_ends()
        self._timeouts.note_input(in_line=False)
        return self._admission.connections.draining or self._half_closed

    @property
    def busy(self) -> bool:
        """Whether a request is being received, or waits for its response."""
        return self._in_request or self._in_head

    def dismiss(self) -> None:
        """Close it; a client that waits for a response is asked to try again later."""
        if self.busy:
            self._transport.write(problem(HTTPStatus.SERVICE_UNAVAILABLE, _CLOSING, retry=True))
        self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._admission.connections.draining:  # it was accepted just before
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, _CLOSING)
            return
        match self._admission.connections.enter(self, self._client.address):
            case LimitReached.FOR_ANYBODY:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            case LimitReached.FOR_THIS_CLIENT:
                self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from your address")
            case None:
                self._handler = self._admission.make_handler()
                self._handler.connection_made(transport)
                self._timeouts.note_input(in_line=False)

    def data_received(self, data: bytes) -> None:
        if self._handler is None:
            return
        if not self._in_request:
            self._in_head = True
            self._timeouts.note_input(in_line=True)
        self._handler.data_received(data)

    def eof_received(self) -> bool:
        """True keeps our side open for the response to what has come; whether that is a whole request shows soon."""
        if not self.busy:
            return False
        self._half_closed = True
        self._loop.call_later(_LINGER_SECONDS, self._end_unfinished)
        return True

    def pause_writing(self) -> None:
        if self._handler is not None:
            self._handler.pause_writing()

    def resume_writing(self) -> None:
        if self._handler is not None:
            self._handler.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._timeouts.stop()
        if self._lingering is not None:
            self._lingering.cancel()
            self._admission.lingering -= 1
        if self._handler is not None:
            self._admission.connections.leave(self)
            self._handler.connection_lost(error)

    # How it ends

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._transport.write(problem(status, detail, retry=True))
        if self._admission.lingering >= _MOST_LINGERING:
            self._transport.close()
            return
        self._transport.write_eof()
        self._admission.lingering += 1
        self._lingering = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def _end_unfinished(self) -> None:
        """End a request that is not whole, and whose client sends no more."""
        if self._in_head:
            self._transport.write(problem(HTTPStatus.BAD_REQUEST, "the request broke off"))
            self._transport.close()
        elif self._in_request and self._body is not None and not self._body.is_eof():
            self._body.set_exception(BodyCutOff())
            self._body.feed_eof()  # its reader need not wait for the rest

    def _end_of_time(self) -> bool:
        """Close it; True to wait on, while a request is handled, or its body is read, which has a time of its own."""
        if self._in_request:
            return True
        if self._transport.get_write_buffer_size():  # the client does not read: a close would wait for it
            self._transport.abort()
            return False
        if self._in_head:
            self._transport.write(problem(HTTPStatus.REQUEST_TIMEOUT, "the request did not begin in time"))
        self._transport.close()
        return False


def problem(status: HTTPStatus, detail: str, *, retry: bool = False) -> bytes:
    """A whole response (RFC 9457), after which the connection is closed."""
    body = json.dumps({"status": status.value, "detail": detail}).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {RETRY_SECONDS}"] if retry else []),
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
