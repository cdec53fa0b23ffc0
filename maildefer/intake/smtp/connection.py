"""One connection: what comes is cut into lines and messages, replies go out in as few writes as can be.

It knows nothing of SMTP. Where a reply needs something to be waited for, this connection obeys nothing more meanwhile,
and all others go on; so the way of a message through the event loop has a task for its push, and none for the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, cast

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.error_limits import ErrorLimits
from maildefer.intake.smtp.line_buffer import LineBuffer, LineTooLong
from maildefer.intake.smtp.timeouts import Timeouts

if TYPE_CHECKING:
    from ssl import SSLContext

Answer = Reply | None | Awaitable[Reply | tuple[Reply, ...] | None]
"""A reply, or none as more is to come; or an awaitable of them: with LMTP one for each recipient of a message."""

# What is read lands here, for all connections, and is dealt with before the next read: event loops would else choose
# the size, which uvloop sets to 256 KiB, and allocate so much each time.
_READ = memoryview(bytearray(64 << 10))
_AHEAD_BYTES = 64 << 10  # kept of what comes while an answer is waited for
HANDSHAKE_SECONDS = 30.0


class DataReader(Protocol):
    """Takes what comes until it is complete."""

    def feed(self, data: bytes) -> bytes | None:
        """What is left over when it is complete; None while it wants more. ConnectionError: cut the client off."""

    def pause(self) -> Awaitable[None] | None:
        """What to wait for before more is fed."""


class Connection(asyncio.BufferedProtocol):
    """To be derived: `greet`, `obey`, `forget`. Event loop only."""

    client: Client
    origin: str
    """The address that the connection is from, whatever is said of it since."""

    def __init__(self, hall: ServerContext, *, client: Client | None = None) -> None:
        """`client`: for whom a proxy has opened it."""
        self.hall = hall
        self._announced = client
        self._transport: asyncio.Transport | None = None
        self._inbox = LineBuffer()
        self._output: list[Reply] = []
        self._body: DataReader | None = None
        self._waiting: asyncio.Task[None] | None = None
        self._clogged = False  # the client does not read what we say
        self._ended = False  # it says no more
        self._closing = False
        self._paused = False
        self._admitted = False
        self._patience = Timeouts(hall.loop, hall.options, self._out_of_patience)

    # What a protocol does with it

    def greet(self) -> Reply:
        """The first line."""
        raise NotImplementedError

    def obey(self, line: bytes) -> Answer:
        """The answer to a line, which comes without its end."""
        raise NotImplementedError

    def too_long(self, start: bytes) -> Reply | None:
        """The reply to a line of which nothing is kept but how it starts."""
        return replies.LINE_TOO_LONG

    def forget(self) -> None:
        """Drop what the client has said: it said it without encryption."""
        raise NotImplementedError

    def abandon(self) -> None:
        """The client is gone: give back what is held for it."""

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return False

    def take(self, body: DataReader, then: Callable[[], Answer]) -> None:
        """What comes next is no line; it is taken by `body`, and answered by `then`. No reply until then."""
        self._body, self._then = body, then
        self._patience.body_begins()

    def encrypt(self, context: SSLContext, reply: Reply) -> None:
        """Say so, and go on with TLS; whatever came before it in the clear is dropped, and never obeyed."""
        if self._transport is None:
            return
        if self._inbox.take():
            events.emit("intake.refused", client=str(self.client), reason="commands sent ahead of encryption")
        self._transport.pause_reading()
        self._paused = False
        self._reply(reply)
        self._flush()
        self._waiting = self.hall.loop.create_task(self._shake_hands(context))

    def close(self, reply: Reply | None = None) -> None:
        """Say so, and hang up once it is sent."""
        if self._transport is not None and not self._closing:
            if reply is not None:
                self._reply(reply)
            self._flush()
            self._closing = True
            self._transport.close()

    def dismiss(self) -> None:
        """Say that we close, and do; for a connection without a transaction."""
        self.close(replies.CLOSING)

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.client = self._announced or Client.of(transport)
        self.origin = self.client.address
        if refusal := self.hall.enter(self):
            self.close(refusal)
            return
        self._admitted = True
        self._conduct = ErrorLimits(self.hall.options, lenient=self.hall.exempts(self.client))
        if transport.get_extra_info("ssl_object") is not None:
            self._note_encryption()
        self._reply(self.greet())
        self._advance()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _READ

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_READ[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """What has come."""
        if self._closing:
            return
        self._inbox.add(data)
        self._advance()

    def eof_received(self) -> bool:
        """True keeps our side open for the answer that is being waited for; encrypted there is no such half."""
        self._ended = True
        return self._waiting is not None and not self.client.tls

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False
        self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._patience.stop()
        if self._admitted:
            self._admitted = False
            self.hall.connections.leave(self)
            self.abandon()

    # How it goes on

    def _advance(self) -> None:
        """Obey what has come, as far as nothing has to be waited for; then all replies go in one write."""
        while not (self._waiting or self._clogged or self._closing) and self._inbox:
            if not (self._take_line() if self._body is None else self._feed(self._body)):
                break
        self._flush()
        if self._transport is None or self._closing:
            return
        if self._ended and self._waiting is None:
            self.close()
            return
        self._patience.something_came(in_line=self._inbox.in_line)
        ahead = (self._waiting or self._clogged) and len(self._inbox) > _AHEAD_BYTES
        if bool(ahead) is not self._paused:
            self._paused = bool(ahead)
            (self._transport.pause_reading if ahead else self._transport.resume_reading)()

    def _take_line(self) -> bool:
        """False when there is no whole one."""
        try:
            line = self._inbox.line()
        except LineTooLong as fault:
            if fault.endless:
                self.close(replies.LINE_TOO_LONG)
                return False
            self._patience.line_ends()
            self._settle(self.too_long(fault.start))
            return True
        if line is None:
            return False
        self._patience.line_ends()
        self._settle(self.obey(line))
        return True

    def _feed(self, body: DataReader) -> bool:
        try:
            rest = body.feed(self._inbox.take())
        except ConnectionError as reason:
            events.emit("intake.refused", client=str(self.client), reason=str(reason))
            assert self._transport is not None
            self._closing = True
            self._transport.abort()
            return False
        if rest is None:
            if (pause := body.pause()) is not None:
                self._settle(pause)
            return False
        self._inbox.give_back(rest)
        self._body = None
        self._patience.body_ends()
        self._settle(self._then())
        return True

    def _settle(self, answer: Answer) -> None:
        if answer is None:
            return
        seconds = self._conduct.note(answer) if isinstance(answer, Reply) else 0.0
        if isinstance(answer, Reply) and not seconds:
            self._reply(answer)
            self._judge()
        else:
            self._waiting = self.hall.loop.create_task(self._wait_for(answer, seconds))

    def _judge(self) -> None:
        if verdict := self._conduct.verdict():
            events.emit("intake.refused", client=str(self.client), reason=str(verdict))
            self.close(verdict)

    async def _wait_for(
        self, answer: Reply | Awaitable[Reply | tuple[Reply, ...] | None], seconds: float
    ) -> None:
        self._flush()
        try:
            if isinstance(answer, Reply):
                said: tuple[Reply, ...] = (answer,)
            else:
                heard = await answer
                said = heard if isinstance(heard, tuple) else () if heard is None else (heard,)
                seconds = self._conduct.note(*said)
            if seconds:
                await asyncio.sleep(seconds)
        except Exception as error:  # noqa: BLE001  # whatever it is, the client is to try again
            events.emit("intake.refused", client=str(self.client), reason=f"{type(error).__name__}: {error}")
            said = (replies.INTERNAL,)
        self._waiting = None
        self._reply(*said)
        self._judge()
        self._advance()

    async def _shake_hands(self, context: SSLContext) -> None:
        transport = self._transport
        assert transport is not None
        try:
            self._transport = await self.hall.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
            events.emit("intake.refused", client=str(self.client), reason=f"no encryption: {fault}")
            transport.abort()
            self.connection_lost(None)
            return
        self._waiting = None
        if self._transport is None or self._closing:
            return
        self.forget()
        self._note_encryption()
        self._advance()

    def _note_encryption(self) -> None:
        assert self._transport is not None
        self.client.tls = self._transport.get_extra_info("ssl_object").version() or "TLS"

    def _reply(self, *said: Reply) -> None:
        self._output += said

    def _flush(self) -> None:
        if self._output:
            if self._transport is not None and not self._closing:
                self._transport.write(("\r\n".join(map(str, self._output)) + "\r\n").encode())
            self._output.clear()

    def _out_of_patience(self) -> bool:
        """True to go on waiting, as it is we who take so long."""
        if self._waiting and not self._clogged:
            return True
        if self._clogged and self._transport is not None:
            self._transport.abort()
        self.close(replies.TIMEOUT)
        return False
