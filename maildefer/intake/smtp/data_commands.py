"""The commands DATA (RFC 5321) and BDAT (RFC 3030)."""

from __future__ import annotations

import re
from functools import partial
from typing import ClassVar, Final

from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.outcomes import Stored
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.body import ChunkReader, DiscardingReader, DotReader
from maildefer.intake.smtp.connection import Answer, Connection
from maildefer.intake.smtp.transaction import IncomingMessage, Transaction
from maildefer.message.envelope import TOP_LIMIT_BYTES

_CHUNK_FOLLOWS: Final = re.compile(rb"[ \t]*bdat(?![a-z0-9])", re.IGNORECASE).match


class DataCommands(Connection):
    """A connection with a transaction, which the derived class begins."""

    lmtp: ClassVar[bool] = False

    def __init__(self, context: ServerContext, *, client: Client | None = None) -> None:
        super().__init__(context, client=client)
        self.transaction: Transaction | None = None
        self._limit_bytes = context.options.max_bytes - TOP_LIMIT_BYTES
        self._incoming: IncomingMessage | None = None
        self._chunk_reader: ChunkReader | None = None  # of a message that comes by BDAT

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
        self.read_data(DotReader(self._begin_message().buffer), self._answer_message_end)
        return replies.START_DATA

    def bdat(self, argument: str) -> Answer:
        """Read a chunk (RFC 3030); BINARYMIME is not offered, since CRLF becomes LF in the Maildir."""
        size, _, last = argument.partition(" ")
        if (
            not (size.isascii() and size.isdigit())
            or len(size) > 20
            or last.strip().upper() not in ("", "LAST")
        ):
            self.close(replies.SYNTAX_BDAT)  # where the next command begins is unknown
            return None
        if int(size) > 2 * self._limit_bytes:
            self.close(replies.TOO_LARGE)
            return None
        if self.transaction is None or not self.transaction.recipients:
            if not int(size):
                return replies.RCPT_FIRST
            self._timeouts.message_begins()
            self.read_data(DiscardingReader(int(size)), lambda: replies.RCPT_FIRST)
            return None
        if self._chunk_reader is None:
            self._chunk_reader = ChunkReader(self._begin_message().buffer)
        elif self._timeouts.message_overdue():
            self.close(replies.TIMEOUT)
            return None
        self._chunk_reader.begin_chunk(int(size))
        answer = partial(self._answer_chunk, int(size), bool(last))
        if not int(size):
            return answer()
        self.read_data(self._chunk_reader, answer)
        return None

    def refuse_line(self, line: bytes, refusal: Reply) -> Reply | None:
        """Refuse a command; after a refused BDAT the connection is closed, lest its chunk is read as commands.

        The chunk follows without waiting for a reply (RFC 3030, section 2).
        """
        if _CHUNK_FOLLOWS(line) is None:
            return refusal
        self.close(refusal)
        return None

    def answer_message(self, outcomes: list[Stored]) -> Reply | tuple[Reply, ...]:
        """The reply to a message, or with LMTP the replies."""
        return replies.for_all(outcomes)

    def _begin_message(self) -> IncomingMessage:
        assert self.transaction is not None
        self._timeouts.message_begins()
        self._incoming = IncomingMessage(self.context, self.client, self.transaction, together=not self.lmtp)
        return self._incoming

    def _answer_message_end(self) -> Answer:
        assert self._incoming is not None
        return self._store(self._incoming)

    def _answer_chunk(self, size_bytes: int, last: bool) -> Answer:
        assert self._incoming is not None
        assert self._chunk_reader is not None
        if not last:
            refusal = self._incoming.buffer.refusal
            return replies.chunk_received(size_bytes) if refusal is None else replies.refused(refusal)
        self._chunk_reader.end_message()
        return self._store(self._incoming)

    def _store(self, incoming: IncomingMessage) -> Answer:
        """Push the message; the reply comes once it is durable for all recipients, or has failed."""
        try:
            outcomes = incoming.begin_push(partial(self._end_store, incoming))
        except Exception as error:  # noqa: BLE001
            return self._end_message(self.note_fault(error))
        if outcomes is None:
            self._waiting = True
            return None
        return self._end_message(self.answer_message(outcomes))

    def _end_store(self, incoming: IncomingMessage, stored: list[Stored]) -> None:
        try:
            answer = self.answer_message(incoming.end_push(stored))
        except Exception as error:  # noqa: BLE001
            answer = self.note_fault(error)
        self.end_wait(*self._end_message(answer))

    def _end_message(self, answer: Reply | tuple[Reply, ...]) -> tuple[Reply, ...]:
        self._incoming, self._chunk_reader, self.transaction = None, None, None
        self.client.forwarded = {}
        if self.context.connections.draining:
            self.context.loop.call_soon(self.dismiss)
        return answer if isinstance(answer, tuple) else (answer,)

    def _end_transaction(self) -> None:
        if self._incoming is not None:
            self._incoming.abandon()
        self._incoming, self._chunk_reader, self.transaction = None, None, None
        self.client.forwarded = {}
