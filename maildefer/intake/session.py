# Being replaced (14:25-14:50): see /tmp/plan/session-rewrite.txt before editing.
"""One connection: aiosmtpd's SMTP, hardened, with a DATA of its own."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, syntax
from aiosmtpd.smtp import Session as Peer

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.accept import accept
from maildefer.intake.data import receive
from maildefer.intake.hall import Hall
from maildefer.intake.wire import Message
from maildefer.message.envelope import TOP_LIMIT_BYTES, encode_address

_BUFFER_BYTES = 64 << 10
_COMMAND_BYTES = 2048  # an envelope's address may have 900, and be escaped
_NULL = "<>"  # aiosmtpd's spelling of the null sender, since an empty one reads as none to it
# RFC 5321, section 4.1.2: in brackets, after a source route that counts no more; bare too, as some clients send it.
# aiosmtpd's own parser is 50 times slower, and makes other addresses of some that are wrong.
_DOMAIN = r'(?:[^\s<>"\\()\[\],:;@]+|\[[^\s<>\[\]]+\])'
_WORD = r'[^\s<>"\\()\[\],:;@]+'
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PATH = re.compile(
    rf"\s*(?:<(?:@[^\s<>:]+:)?((?:{_WORD}|{_QUOTED})(?:@{_DOMAIN})?|)>|({_WORD}@{_DOMAIN}))(\s.*)?\Z",
    re.DOTALL,
).match


class Session(SMTP):
    """An SMTP connection to the hall's queue."""

    line_length_limit = _BUFFER_BYTES
    envelope: Envelope
    session: Peer

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._refused = False
        self._held_bytes = 0
        self._deadline = 0.0
        self.command_size_limits = defaultdict(
            lambda: _COMMAND_BYTES
        )  # aiosmtpd's is shared by all connections
        self._limit_bytes = hall.options.max_bytes - TOP_LIMIT_BYTES
        super().__init__(
            Hooks(hall),
            data_size_limit=self._limit_bytes,
            enable_SMTPUTF8=True,
            hostname=hall.options.hostname,
            ident="maildefer",
            timeout=hall.options.idle_seconds,
            auth_exclude_mechanism=("LOGIN", "PLAIN"),
            loop=hall.loop,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._hall.enter(self):
            transport.max_size = _BUFFER_BYTES  # type: ignore[attr-defined]  # asyncio's 256 KiB a read cost more
            return super().connection_made(transport)
        self._refused = True
        cast(asyncio.Transport, transport).write(f"{replies.TOO_MANY_CONNECTIONS}\r\n".encode())
        transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._refused:
            self._hall.leave(self)
            super().connection_lost(error)

    def eof_received(self) -> bool | None:
        return None if self._refused else super().eof_received()

    def _reset_timeout(self, duration: float | None = None) -> None:
        """aiosmtpd makes a timer for each command; here one timer looks whether the last command is long ago."""
        self._deadline = self.loop.time() + (duration or self._timeout_duration)
        if self._timeout_handle is None:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        if self.loop.time() < self._deadline:
            self._timeout_handle = self.loop.call_at(self._deadline, self._look_at_deadline)
        elif self.transport is not None:
            cast(asyncio.Transport, self.transport).write(f"{replies.TIMEOUT}\r\n".encode())
            self.transport.close()

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return self.envelope.mail_from is not None

    def dismiss(self) -> None:
        """Say that we close, and do; for a connection without a transaction."""
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).write(f"{replies.CLOSING}\r\n".encode())
            self.transport.close()

    @syntax("DATA")
    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return
        if arg or not self.envelope.rcpt_tos:
            await self.push("501 5.5.4 Syntax: DATA" if arg else "503 5.5.1 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        envelope = self.envelope
        try:
            data = await receive(self._reader, self._limit_bytes, hold=self._hold, alive=self._reset_timeout)
            if data.refusal is None:
                answers = await accept(self._hall.line, self._received(data.message))
            else:
                note_refusal(self, envelope, data.refusal)
                answers = dict.fromkeys(envelope.rcpt_tos, data.refusal)
        finally:
            self._hall.give_back(self._held_bytes)
            self._held_bytes = 0
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.answer([answers[recipient] for recipient in envelope.rcpt_tos])
        if self._hall.draining:
            self.dismiss()

    async def answer(self, answers: list[str]) -> None:
        """SMTP has one reply for all recipients; they were pushed together, or none was."""
        refused = [answer for answer in answers if not answer.startswith("250")]
        if refused:
            await self.push(min(refused))  # what may be tried again (4yz) before what may not (5yz)
        else:
            await self.push(replies.queued([answer.rpartition(" ")[2] for answer in answers]))

    def _hold(self, size_bytes: int) -> bool:
        if not self._hall.hold(size_bytes):
            return False
        self._held_bytes += size_bytes
        return True

    def _received(self, data: bytes) -> Message:
        protocol = "SMTP"
        if self._hall.options.lmtp:
            protocol = "UTF8LMTP" if self.envelope.smtp_utf8 else "LMTP"  # RFC 6531, section 4.3
        elif self.session.extended_smtp:
            protocol = "UTF8SMTP" if self.envelope.smtp_utf8 else "ESMTP"
        sender = self.envelope.mail_from
        return Message(
            sender="" if sender is None or sender == _NULL else sender,
            recipients=tuple(dict.fromkeys(self.envelope.rcpt_tos)),
            data=data,
            client=client_of(self.session),
            via=protocol,
            together=not self._hall.options.lmtp,
        )

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        path = _PATH(arg)
        return (None, None) if path is None else (path[1] or path[2] or _NULL, path[3] or "")


class Hooks:
    """What aiosmtpd asks of its handler: the decisions at EHLO, MAIL and RCPT."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def handle_EHLO(
        self, server: SMTP, session: Peer, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]]

    async def handle_MAIL(
        self, server: SMTP, session: Peer, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        try:
            encode_address(address)
        except ValueError:
            return replies.BAD_SENDER
        if await self._hall.line.shortage():
            return replies.FULL
        envelope.mail_from = address
        return "250 2.1.0 sender ok"

    async def handle_RCPT(
        self, server: Session, session: Peer, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        refusal = self._refusal(address, len(envelope.rcpt_tos))
        if refusal is None:
            envelope.rcpt_tos.append(address)
            return "250 2.1.5 recipient ok"
        note_refusal(server, envelope, refusal, recipient=address)
        return refusal

    def _refusal(self, address: str, others: int) -> str | None:
        try:
            if not encode_address(address):
                return replies.BAD_RECIPIENT
        except ValueError:
            return replies.BAD_RECIPIENT
        if others >= self._hall.options.max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        if self._hall.recipients.empty:
            return replies.NO_TABLE
        return None if self._hall.recipients.accept(address) else replies.NO_ROUTE

    async def handle_exception(self, error: Exception) -> str:
        events.emit("intake.refused", reason=f"{type(error).__name__}: {error}")
        return replies.INTERNAL


def note_refusal(session: Session, envelope: Envelope, reply: str, **facts: Any) -> None:
    events.emit(
        "intake.refused", client=client_of(session.session), sender=envelope.mail_from, reason=reply, **facts
    )


def client_of(session: Peer) -> str:
    """Who sends, as a Received line has it."""
    peer = session.peer
    address = f" ([{peer[0]}])" if isinstance(peer, tuple) else ""
    return f"{session.host_name or 'unknown'}{address}"
