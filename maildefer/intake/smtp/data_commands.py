"""Messages on a connection: by DATA (RFC 5321), or in chunks by BDAT (RFC 3030)."""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar, Final

from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.outcomes import Stored
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.body import Chunked, DiscardedChunk, Dotted
from maildefer.intake.smtp.connection import Answer, Connection
from maildefer.intake.smtp.transaction import IncomingMessage, Transaction
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
        self.take(Dotted(self._begin_message().buffer), self._message_came)
        return replies.START_DATA

    def bdat(self, argument: str) -> Answer:
        """RFC 3030; without its BINARYMIME, since line ends change on their way to the Maildir."""
        size, _, last = argument.partition(" ")
        if (
            not (size.isascii() and size.isdigit())
            or len(size) > 20
            or last.strip().upper() not in ("", "LAST")
        ):
            self.close(replies.SYNTAX_BDAT)  # who knows what of the rest is message
            return None
        if int(size) > 2 * self._limit_bytes:
            self.close(replies.TOO_LARGE)
            return None
        if self.transaction is None or not self.transaction.recipients:
            if not int(size):
                return replies.RCPT_FIRST
            self._patience.message_begins()
            self.take(DiscardedChunk(int(size)), lambda: replies.RCPT_FIRST)
            return None
        if self._chunked is None:
            self._chunked = Chunked(self._begin_message().buffer)
        elif self._patience.is_over():
            self.close(replies.TIMEOUT)
            return None
        self._chunked.begin(int(size))
        then = partial(self._chunk_came, int(size), bool(last))
        if not int(size):
            return then()
        self.take(self._chunked, then)
        return None

    def disobey(self, line: bytes, refusal: Reply) -> Reply | None:
        """A chunk follows BDAT without waiting: where its line isn't obeyed, what comes next must not be taken for
        commands (RFC 3030, section 2).
        """
        if _CHUNK_FOLLOWS(line) is None:
            return refusal
        self.close(refusal)
        return None

    def answer(self, outcomes: list[Stored]) -> Reply | tuple[Reply, ...]:
        """The reply to a message, by what became of it for each recipient."""
        return replies.for_all(outcomes)

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
            refusal = self._incoming.buffer.refusal
            return replies.chunk_received(size_bytes) if refusal is None else replies.refused(refusal)
        self._chunked.end()
        return self._stored(self._incoming)

    async def _stored(self, incoming: IncomingMessage) -> Reply | tuple[Reply, ...]:
        try:
            return self.answer(await incoming.store())
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
