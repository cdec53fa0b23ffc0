"""One mail transaction: its envelope, and its message from the first byte to what became of it for each recipient."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.outcomes import Refusal, Stored
from maildefer.intake.smtp.body import MessageBuffer
from maildefer.intake.smtp.mail_loops import Trace
from maildefer.intake.writer.protocol import Message
from maildefer.message.envelope import TOP_LIMIT_BYTES


@dataclass(slots=True, kw_only=True)
class Transaction:
    """The envelope, from MAIL to the end of the message; RSET, EHLO and STARTTLS drop it."""

    sender: str
    via: str
    """The protocol, as the Received line has it (RFC 3848, RFC 6531)."""
    utf8: bool = False
    """SMTPUTF8 was asked for (RFC 6531)."""
    recipients: list[str] = field(default_factory=list)
    """Those that were accepted, in their order; LMTP replies for each, also where one is named twice."""
    dsn: str = ""
    """RET and ENVID, as `message/dsn/parameters` has them."""
    recipient_dsn: dict[str, str] = field(default_factory=dict)
    """NOTIFY and ORCPT, where a recipient comes with any, whether it is accepted or not; the last counts."""

    def asked_of_reports(self) -> dict[str, str]:
        """By recipient, the parameters for its entry."""
        if not self.dsn:
            return self.recipient_dsn
        return {each: f"{self.dsn} {self.recipient_dsn.get(each, '')}".rstrip() for each in self.recipients}


class IncomingMessage:
    """The message of a transaction: a large one goes to the writer in parts as it comes, a small one with its end."""

    def __init__(
        self, context: ServerContext, client: Client, transaction: Transaction, *, together: bool
    ) -> None:
        """`together`: the message is stored for all recipients or for none."""
        self._context = context
        self._client = client
        self._transaction = transaction
        self._together = together
        self._draft = 0
        self._sending_part = self._storing = self._abandoned = False
        self._held_bytes = self._sent_bytes = 0
        self._trace = Trace(context.options)
        self._began = 0.0  # its push
        self._looping: dict[str, None] = {}  # recipients for whom it is a mail loop
        self.buffer = MessageBuffer(
            context.options.max_bytes - TOP_LIMIT_BYTES,
            hold=self._hold_bytes,
            part_bytes=context.options.buffer_bytes,
            send_part=self._send_part,
        )

    def begin_push(self, done: Callable[[list[Stored]], None]) -> list[Stored] | None:
        """Push the message: the outcome for each recipient where it is known at once, with None `end_push` tells it.

        `done` is called with what `end_push` needs, once all is durable or has failed (I1).
        """
        self._storing = True
        try:
            if self.buffer.refusal is not None:
                self._note_refusal(self.buffer.refusal)
                return self._end_unpushed(
                    dict.fromkeys(self._transaction.recipients, Stored("", self.buffer.refusal))
                )
            self._message = self._part(self.buffer.take_pieces(), whole=True)
            if not self._message.recipients:
                return self._end_unpushed({})
            self._began = time.monotonic()
            stored = self._context.writer.begin_push(self._message, done)
        except BaseException:
            self._release_bytes()
            raise
        return None if stored is None else self.end_push(stored)

    def end_push(self, stored: list[Stored]) -> list[Stored]:
        """Tell the log what became of the message; returns the outcome for each recipient."""
        message = self._message
        try:
            outcomes = dict(zip(message.recipients, stored, strict=True))
            failed = {recipient: each for recipient, each in outcomes.items() if each.fault is not None}
            if not failed or not message.together:
                size_bytes = self._sent_bytes + _size_bytes(message)
                _note_accepted(message, outcomes, size_bytes, time.monotonic() - self._began)
            for recipient, each in failed.items():
                note_refusal(self._client, message.sender, each.reason, recipient=recipient)
            return self._for_each(outcomes)
        finally:
            self._release_bytes()

    def _end_unpushed(self, outcomes: dict[str, Stored]) -> list[Stored]:
        self._drop_draft()
        self._release_bytes()
        return self._for_each(outcomes)

    def _for_each(self, outcomes: dict[str, Stored]) -> list[Stored]:
        """The outcomes in the order of the recipients, with those for whom it is a mail loop."""
        outcomes |= dict.fromkeys(self._looping, Stored("", Refusal.MAIL_LOOP))
        self._context.accepted += any(each.fault is None for each in outcomes.values())
        return [outcomes[recipient] for recipient in self._transaction.recipients]

    def abandon(self) -> None:
        """Drop it, as its end will not come; does nothing once it is being stored."""
        if self._storing:
            return
        self._abandoned = True
        if not self._sending_part:
            self._drop_draft()
        self._release_bytes()

    async def _send_part(self, pieces: tuple[bytes, ...]) -> None:
        self._sending_part = True
        try:
            message = self._part(pieces, whole=False)
            if not message.recipients:
                self.buffer.refuse(Refusal.MAIL_LOOP)
                return
            self._draft = self._draft or self._context.writer.fresh_draft()
            self._sent_bytes += _size_bytes(message)
            for each in await self._context.writer.push(message._replace(draft=self._draft)):
                self.buffer.refuse(each.fault or Refusal.INTERNAL_ERROR)
                note_refusal(self._client, self._transaction.sender, each.reason)
        finally:
            self._sending_part = False
            self._release_bytes()
            if self._abandoned:
                self._drop_draft()

    def _part(self, pieces: tuple[bytes, ...], *, whole: bool) -> Message:
        """The message, or a part of it, for the recipients for whom it is no mail loop."""
        recipients = tuple(dict.fromkeys(self._transaction.recipients))
        self._look_for_loops(pieces, recipients)
        return Message(
            sender=self._transaction.sender,
            recipients=tuple(each for each in recipients if each not in self._looping),
            pieces=pieces,
            via=self._transaction.via,
            client=str(self._client),
            together=self._together,
            draft=self._draft,
            whole=whole,
            dsn=self._transaction.asked_of_reports(),
        )

    def _look_for_loops(self, pieces: tuple[bytes, ...], recipients: tuple[str, ...]) -> None:
        """Note recipients for whom it is a mail loop; all, if one is, with SMTP's one reply or a draft for all."""
        self._trace.feed(*pieces)
        found = self._trace.loops(recipients)
        for recipient in found.keys() - self._looping.keys():
            reason = f"mail loop: {found[recipient]}"
            note_refusal(self._client, self._transaction.sender, reason, recipient=recipient)
            self._looping |= dict.fromkeys(recipients if self._together or self._draft else [recipient])

    def _drop_draft(self) -> None:
        if self._draft:
            self._context.writer.drop_draft(self._draft)
            self._draft = 0

    def _hold_bytes(self, size_bytes: int) -> bool:
        if not self._context.hold_bytes(size_bytes):
            return False
        self._held_bytes += size_bytes
        return True

    def _release_bytes(self) -> None:
        self._context.release_bytes(self._held_bytes)
        self._held_bytes = self.buffer.kept_bytes = 0

    def _note_refusal(self, refusal: Refusal) -> None:
        note_refusal(self._client, self._transaction.sender, str(replies.refused(refusal)))


def note_refusal(client: Client, sender: str, reason: str, **facts: Any) -> None:
    """Tell the log that a message, or one of its recipients, is refused."""
    events.emit("intake.refused", client=str(client), sender=sender, reason=reason, **facts)


def _note_accepted(message: Message, outcomes: dict[str, Stored], size_bytes: int, seconds: float) -> None:
    keys = {recipient: each.key for recipient, each in outcomes.items() if each.fault is None}
    if keys:
        events.emit(
            "intake.accepted",
            keys=" ".join(keys.values()),
            sender=message.sender,
            recipients=" ".join(keys),
            bytes=size_bytes,
            client=message.client,
            duration_ms=events.ms(seconds),
        )


def _size_bytes(message: Message) -> int:
    return sum(map(len, message.pieces))
