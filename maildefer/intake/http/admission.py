"""Between a connection and aiohttp's side of it: who is let in, and how long a request may take to begin.

aiohttp has no limit for either in all of its versions. The time of a body is the door's, which reads it.
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
_LINGER_SECONDS: Final = (
    1.0  # for an answer to be read: to close at once would throw it away with what still comes
)
_MOST_LINGERING: Final = 100


class RequestBody(Protocol):
    """What comes behind a request's head, as aiohttp reads it."""

    def is_eof(self) -> bool:
        """Whether all of it has come."""

    def set_exception(self, exc: BaseException) -> None:
        """Tell who reads it."""

    def feed_eof(self) -> None:
        """Nothing more of it will come."""


class BrokeOff(ConnectionError):
    """The client has said that it sends no more, in the middle of a body."""


class Admission:
    """What all gates of the process share. Event loop only."""

    def __init__(self, options: FrontEndOptions, inner: Callable[[], asyncio.Protocol]) -> None:
        """`inner` makes what serves a connection."""
        self.limits = options
        self.connections = OpenConnections(ConnectionLimits(options, options.connection_row))
        self.inner = inner
        self.lingering = 0
        self._beginning: set[asyncio.Task[object]] = set()

    def take(self, sock: socket.socket, client: Client) -> None:
        """A connection that has been accepted."""
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.connect_accepted_socket(lambda: HttpConnection(self, client, loop), sock)
        )
        self._beginning.add(task)  # else nobody holds it
        task.add_done_callback(self._beginning.discard)


class HttpConnection(asyncio.Protocol):
    """One connection's. It is told when a request is in hand, and when it is answered."""

    def __init__(self, lodge: Admission, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._lodge = lodge
        self._client = client
        self._loop = loop
        self._inner: asyncio.Protocol | None = None  # None: it was not let in
        self._patience = Timeouts(loop, lodge.limits, self._out_of_patience)
        self._in_hand = self._in_head = False
        self._body: RequestBody | None = None
        self._ended = False  # it says no more
        self._lingering: asyncio.TimerHandle | None = None

    def in_hand(self, body: RequestBody) -> None:
        """A request's head is complete: its time is somebody else's."""
        self._in_hand, self._in_head = True, False
        self._body = body
        self._patience.line_ends()

    def answered(self) -> bool:
        """Its answer is about to be sent; the client may take its time to read it, and to send another request.

        True where it may not send another.
        """
        self._in_hand = self._in_head = False
        self._patience.line_ends()
        self._patience.note_input(in_line=False)
        return self._lodge.connections.draining or self._ended

    @property
    def busy(self) -> bool:
        """Whether a request is on its way, or waits for its answer."""
        return self._in_hand or self._in_head

    def dismiss(self) -> None:
        """Hang up; who waits for an answer is to come again."""
        if self.busy:
            self._transport.write(
                problem(HTTPStatus.SERVICE_UNAVAILABLE, "closing; try again later", retry=True)
            )
        self._transport.close()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        match self._lodge.connections.enter(self, self._client.address):
            case LimitReached.FOR_ANYBODY:
                self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
            case LimitReached.FOR_THIS_CLIENT:
                self._refuse(HTTPStatus.TOO_MANY_REQUESTS, "too many connections from your address")
            case None:
                self._inner = self._lodge.inner()
                self._inner.connection_made(transport)
                self._patience.note_input(in_line=False)

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            return
        if not self._in_hand:
            self._in_head = True
            self._patience.note_input(in_line=True)
        self._inner.data_received(data)

    def eof_received(self) -> bool:
        """True keeps our side open, for the answer to what has come; whether that is a whole request shows soon."""
        if not self.busy:
            return False
        self._ended = True
        self._loop.call_later(_LINGER_SECONDS, self._give_up_waiting)
        return True

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._patience.stop()
        if self._lingering is not None:
            self._lingering.cancel()
            self._lodge.lingering -= 1
        if self._inner is not None:
            self._lodge.connections.leave(self)
            self._inner.connection_lost(error)

    # How it ends

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        self._transport.write(problem(status, detail, retry=True))
        if self._lodge.lingering >= _MOST_LINGERING:
            self._transport.close()
            return
        self._transport.write_eof()
        self._lodge.lingering += 1
        self._lingering = self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    def _give_up_waiting(self) -> None:
        """For the rest of a request whose client says no more."""
        if self._in_head:
            self._transport.write(problem(HTTPStatus.BAD_REQUEST, "the request broke off"))
            self._transport.close()
        elif self._in_hand and self._body is not None and not self._body.is_eof():
            self._body.set_exception(BrokeOff())
            self._body.feed_eof()  # nobody need wait for the rest

    def _out_of_patience(self) -> bool:
        """True to go on waiting, as it is we who take so long, or as the body has a time of its own."""
        if self._in_hand:
            return True
        if self._transport.get_write_buffer_size():  # it does not read: it would not let us close either
            self._transport.abort()
            return False
        if self._in_head:
            self._transport.write(problem(HTTPStatus.REQUEST_TIMEOUT, "the request did not begin in time"))
        self._transport.close()
        return False


def problem(status: HTTPStatus, detail: str, *, retry: bool = False) -> bytes:
    """A whole answer (RFC 9457), after which the connection ends."""
    body = json.dumps({"status": status.value, "detail": detail}).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        *([f"Retry-After: {RETRY_SECONDS}"] if retry else []),
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
