"""One connection: input is cut into lines and messages, and replies go out in as few writes as possible.

It knows nothing of SMTP. While a reply is waited for, the connection processes no further input, and all others go on.
No message has a task on the event loop, unless it is so large that it comes in parts, or a policy is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.body import DataReader
from maildefer.intake.smtp.error_limits import ErrorLimits
from maildefer.intake.smtp.line_buffer import LineBuffer, LineTooLong
from maildefer.intake.smtp.timeouts import Timeouts
from maildefer.intake.socket_transport import encrypted

if TYPE_CHECKING:
    from ssl import SSLContext

Replies = Reply | tuple[Reply, ...] | None
"""One reply; with LMTP one for each recipient of a message; or None, where there is none yet."""
Answer = Replies | Awaitable[Replies]

# Of all connections: what is read is taken out before the next read. uvloop would allocate 256 KiB for each.
_READ_BUFFER = memoryview(bytearray(64 << 10))
_UNREAD_BYTES = 64 << 10  # the most that is kept of input that comes while a reply is waited for
_MOST_REPLIES = 64  # before others have their turn
HANDSHAKE_SECONDS = 30.0


class Connection(asyncio.BufferedProtocol):
    """A base class; a protocol gives it `greet`, `answer_line` and `reset_session`. Event loop only."""

    client: Client
    _task: asyncio.Task[None]
    origin: str
    """The address of the connection itself; XCLIENT changes the one of `client`."""

    def __init__(self, context: ServerContext, *, client: Client | None = None) -> None:
        """`client`: what a PROXY header says of it."""
        self.context = context
        self._proxied_client = client
        self._transport: asyncio.Transport | None = None
        self._unread = LineBuffer()
        self._replies: list[Reply] = []
        self._data_reader: DataReader | None = None
        self._waiting = False  # for a reply, and `_task` with it, or for its turn
        self._write_paused = False  # the client does not read the replies
        self._at_eof = False  # the client sends no more
        self._closing = self._read_paused = self._admitted = False
        self._timeouts = Timeouts(context.loop, context.options, self._time_out)

    def greet(self) -> Reply:
        """The greeting, the first reply of all."""
        raise NotImplementedError

    def answer_line(self, line: bytes) -> Answer:
        """Answer a command; the line comes without its end."""
        raise NotImplementedError

    def answer_long_line(self, start: bytes) -> Reply | None:
        """Answer a line that is too long, of which only the start is kept."""
        return replies.LINE_TOO_LONG

    def reset_session(self) -> None:
        """Forget what the client said before its connection was encrypted."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Drop an unfinished message: the connection is lost."""

    @property
    def busy(self) -> bool:
        """Whether a transaction is in progress."""
        return False

    def read_data(self, reader: DataReader, answer: Callable[[], Answer]) -> None:
        """Let `reader` have the input up to the end of its data, which `answer` then answers."""
        self._data_reader, self._answer_data = reader, answer
        self._timeouts.body_begins()

    def start_tls(self, context: SSLContext, reply: Reply) -> None:
        """Reply, and go on with TLS; input that came ahead of it in the clear is dropped and never executed."""
        if self._unread.take_all():
            events.emit("intake.refused", client=str(self.client), reason="commands sent ahead of encryption")
        self._read_paused = False
        self._replies.append(reply)
        self._write_replies()
        if self._transport is None:
            return
        self._transport.pause_reading()
        self._waiting = True
        self._task = self.context.loop.create_task(self._handshake(self._transport, context))

    def end_wait(self, *answers: Reply) -> None:
        """Send the replies that were waited for, and go on with the input."""
        if seconds := self._error_limits.note_replies(*answers):
            self.context.loop.call_later(seconds, self._go_on, answers)
        else:
            self._go_on(answers)

    def note_fault(self, error: Exception) -> Reply:
        """Tell the log of a fault of ours, whatever it is; the client should try again."""
        events.emit("intake.refused", client=str(self.client), reason=f"{type(error).__name__}: {error}")
        return replies.INTERNAL

    def close(self, reply: Reply | None = None) -> None:
        """Reply, and close the connection once the reply is sent."""
        if self._transport is not None and not self._closing:
            if reply is not None:
                self._replies.append(reply)
            self._write_replies()
            self._closing = True
            self._transport.close()

    def dismiss(self) -> None:
        """Close the connection with 421, as the process ends."""
        self.close(replies.CLOSING)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._admitted:  # after its handshake
            return
        self.client = self._proxied_client or Client.of(transport)
        self.origin = self.client.address
        if refusal := self.context.enter(self):
            self.close(refusal)
            return
        self._admitted = True
        self._error_limits = ErrorLimits(self.context.options, exempt=self.context.exempts(self.client))
        if transport.get_extra_info("ssl_object") is not None:
            self._note_encryption()
        self._replies.append(self.greet())
        self._process_input()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_READ_BUFFER[:nbytes]))

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._unread.add_data(data)
        self._process_input()

    def eof_received(self) -> bool:
        """True keeps our side open while input is not answered yet; TLS has no half-closed connections."""
        self._at_eof = True
        return (self._waiting or self._write_paused) and not self.client.tls

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._process_input()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._closing = True
        self._timeouts.stop()
        if self._admitted:
            self._admitted = False
            self.context.connections.leave(self)
            self.abandon()

    # From input to replies

    def _process_input(self) -> None:
        """Answer commands until a reply has to be waited for, or others have their turn; replies go in one write."""
        while not (self._waiting or self._write_paused or self._closing):
            if len(self._replies) >= _MOST_REPLIES:
                self._waiting = True
                self.context.loop.call_soon(self._go_on, ())
            elif self._data_reader is None:
                if not self._read_line():
                    break
            elif not self._unread or not self._feed(self._data_reader):
                break
        self._write_replies()
        if self._transport is None or self._closing:
            return
        if self._at_eof and not (self._waiting or self._write_paused):
            self.close()
            return
        self._timeouts.note_input(in_line=self._unread.in_line)
        ahead = (self._waiting or self._write_paused) and len(self._unread) > _UNREAD_BYTES
        if ahead is not self._read_paused:
            self._read_paused = ahead
            (self._transport.pause_reading if ahead else self._transport.resume_reading)()

    def _read_line(self) -> bool:
        """Answer the next line; False when none is complete."""
        try:
            line = self._unread.next_line()
        except LineTooLong as fault:
            if fault.endless:
                self.close(replies.LINE_TOO_LONG)
                return False
            self._timeouts.line_ends()
            self._send_answer(self.answer_long_line(fault.start))
            return True
        if line is None:
            return False
        self._timeouts.line_ends()
        self._send_answer(self.answer_line(line))
        return True

    def _feed(self, reader: DataReader) -> bool:
        """Let the reader have all input; False when it waits for more."""
        try:
            rest = reader.feed(self._unread.take_all())
        except ConnectionError as reason:
            events.emit("intake.refused", client=str(self.client), reason=str(reason))
            self._closing = True
            cast(asyncio.Transport, self._transport).abort()
            return False
        if rest is None:
            self._send_answer(reader.pause())
            return False
        self._unread.put_back(rest)
        self._data_reader = None
        self._timeouts.body_ends()
        self._send_answer(self._answer_data())
        return True

    def _send_answer(self, answer: Answer) -> None:
        if isinstance(answer, Reply):
            answer = (answer,)
        if isinstance(answer, tuple):
            if seconds := self._error_limits.note_replies(*answer):
                self._waiting = True
                self.context.loop.call_later(seconds, self._go_on, answer)
                return
            self._replies += answer
            self._check_limits()
        elif answer is not None:
            self._waiting = True
            self._task = self.context.loop.create_task(self._wait_and_reply(answer))

    def _check_limits(self) -> None:
        if reply := self._error_limits.limit_reached():
            events.emit("intake.refused", client=str(self.client), reason=str(reply))
            self.close(reply)

    async def _wait_and_reply(self, answer: Awaitable[Replies]) -> None:
        try:
            found = await answer
        except Exception as error:  # noqa: BLE001
            found = self.note_fault(error)
        self.end_wait(*(found if isinstance(found, tuple) else () if found is None else (found,)))

    def _go_on(self, answers: tuple[Reply, ...]) -> None:
        self._waiting = False
        self._replies += answers
        self._check_limits()
        self._process_input()

    async def _handshake(self, transport: asyncio.Transport, context: SSLContext) -> None:
        try:
            self._transport = await encrypted(self.context.loop, transport, self, context, HANDSHAKE_SECONDS)
        except (OSError, TimeoutError) as fault:  # ssl.SSLError is an OSError
            reason = f"no encryption: {str(fault) or 'the client has left'}"
            events.emit("intake.refused", client=str(self.client), reason=reason)
            self.connection_lost(None)
        self._waiting = False
        if self._transport is None or self._closing:
            return
        self.reset_session()
        self._note_encryption()
        self._process_input()

    def _note_encryption(self) -> None:
        assert self._transport is not None
        self.client.tls = self._transport.get_extra_info("ssl_object").version() or "TLS"

    def _write_replies(self) -> None:
        if self._replies and self._transport is not None and not self._closing:
            self.context.refusals.count_replies(self._replies)
            self._transport.write(b"".join([reply.wire for reply in self._replies]))
        self._replies.clear()

    def _time_out(self) -> bool:
        """Close the connection, at once where the client does not read; True while it is not closed."""
        if self._waiting and not self._write_paused:  # the client is waiting for a reply
            return True
        if self._transport is not None and (self._write_paused or self._closing):
            self._transport.abort()
        self.close(replies.TIMEOUT)
        return self._transport is not None
