"""Messages on a connection: by DATA (RFC 5321), or in chunks by BDAT (RFC 3030)."""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar, Final

from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.smtp.body import Chunked, DiscardedChunk, Dotted
from maildefer.intake.smtp.connection import Answer, Connection
from maildefer.intake.smtp.incoming_message import IncomingMessage
from maildefer.intake.smtp.transaction import Transaction
from maildefer.message.envelope import TOP_LIMIT_BYTES

_CHUNK_FOLLOWS: Final = re.compile(rb"[ \t]*bdat(?![a-z0-9])", re.IGNORECASE).match


class DataCommands(Connection):
    """A connection with a transaction; whoever derives from it begins that."""

    lmtp: ClassVar[bool] = False

    def __init__(self, hall: ServerContext, *, client: Client | None = None) -> None:
        super().__init__(hall, client=client)
        self.transaction: Transaction | None = None
        self._limit_bytes = hall.options.max_bytes - TOP_LIMIT_BYTES
        self._incoming: IncomingMessage | None = None
        self._chunked: Chunked | None = None  # the message comes by BDAT

    @property
    def busy(self) -> bool:
        return self.transaction is not None

    def abandon(self) -> None:
        if self._incoming is not None:
            self._incoming.abandon()

    def data(self, argument: str) -> Answer:
        if argument:
            return replies.SYNTAX_DATA
        if self._incoming is not None:
            return replies.IN_CHUNKS
        if self.transaction is None or not self.transaction.recipients:
            return replies.RCPT_FIRST
        self.take(Dotted(self._begin_message().letter), self._message_came)
        return "354 End data with <CR><LF>.<CR><LF>"

    def bdat(self, argument: str) -> Answer:
        """RFC 3030; without its BINARYMIME, since line ends change on their way to the Maildir."""
        size, _, last = argument.partition(" ")
        if (
            not (size.isascii() and size.isdigit())
            or len(size) > 20
            or last.strip().upper() not in ("", "LAST")
        ):
            self.close(replies.SYNTAX_BDAT)  # who knows what of the rest is message
            return ""
        if int(size) > 2 * self._limit_bytes:
            self.close(replies.TOO_LARGE)
            return ""
        if self.transaction is None or not self.transaction.recipients:
            if not int(size):
                return replies.RCPT_FIRST
            self._patience.message_begins()
            return self.take(DiscardedChunk(int(size)), lambda: replies.RCPT_FIRST)
        if self._chunked is None:
            self._chunked = Chunked(self._begin_message().letter)
        elif self._patience.is_over():
            self.close(replies.TIMEOUT)
            return ""
        self._chunked.begin(int(size))
        then = partial(self._chunk_came, int(size), bool(last))
        return self.take(self._chunked, then) if int(size) else then()

    def disobey(self, line: bytes, refusal: str) -> str:
        """A chunk follows BDAT without waiting: where its line isn't obeyed, what comes next must not be taken for
        commands (RFC 3030, section 2).
        """
        if _CHUNK_FOLLOWS(line) is None:
            return refusal
        self.close(refusal)
        return ""

    async def answer(self, incoming: IncomingMessage) -> str:
        """SMTP has one reply for all recipients; they were pushed together, or none was."""
        answers = await incoming.store()
        refused = [answer for answer in answers if not answer.startswith("250")]
        if refused:
            return min(refused)  # what may be tried again (4yz) before what may not (5yz)
        return replies.queued([answer.rpartition(" ")[2] for answer in answers])

    def _begin_message(self) -> IncomingMessage:
        assert self.transaction is not None
        self._patience.message_begins()
        self._incoming = IncomingMessage(self.hall, self.client, self.transaction, together=not self.lmtp)
        return self._incoming

    def _message_came(self) -> Answer:
        assert self._incoming is not None
        return self._stored(self._incoming)

    def _chunk_came(self, size_bytes: int, last: bool) -> Answer:
        assert self._incoming is not None
        assert self._chunked is not None
        if not last:
            return self._incoming.letter.refusal or replies.chunk_taken(size_bytes)
        self._chunked.end()
        return self._stored(self._incoming)

    async def _stored(self, incoming: IncomingMessage) -> str:
        try:
            return await self.answer(incoming)
        finally:
            self._incoming, self._chunked, self.transaction = None, None, None
            self.client.forwarded = {}
            if self.hall.connections.draining:
                self.hall.loop.call_soon(self.dismiss)

    def _reset(self) -> None:
        if self._incoming is not None:
            self._incoming.abandon()
        self._incoming, self._chunked, self.transaction = None, None, None
        self.client.forwarded = {}
