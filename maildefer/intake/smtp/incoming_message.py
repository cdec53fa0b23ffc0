"""One message from its first byte to the replies for its recipients."""

from __future__ import annotations

from typing import Any

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.client import Client
from maildefer.intake.context import ServerContext
from maildefer.intake.smtp.body import MessageBuffer
from maildefer.intake.smtp.mail_loops import Trace
from maildefer.intake.smtp.stored import accept
from maildefer.intake.smtp.transaction import Transaction
from maildefer.intake.writer.protocol import Message
from maildefer.message.envelope import TOP_LIMIT_BYTES


class IncomingMessage:
    """What is large goes to the writer in parts, as it comes; the rest with its end."""

    def __init__(
        self, hall: ServerContext, client: Client, transaction: Transaction, *, together: bool
    ) -> None:
        """`together`: all recipients or none."""
        self._hall = hall
        self._client = client
        self._transaction = transaction
        self._together = together
        self._draft = 0
        self._shipping = self._storing = self._abandoned = False
        self._held_bytes = self._shipped_bytes = 0
        self._trace = Trace(hall.options)
        self._circling: dict[str, None] = {}  # recipients to whom it must not go
        self.letter = MessageBuffer(
            hall.options.max_bytes - TOP_LIMIT_BYTES,
            hold=self._hold,
            part_bytes=hall.options.buffer_bytes,
            ship=self._ship,
        )

    async def store(self) -> list[str]:
        """The replies, in the order of the recipients; returns when all is durable, or has failed (I1)."""
        recipients = self._transaction.recipients
        if (
            self._abandoned
        ):  # the client left before this began: what went ahead to tmp/ is dropped, the rest with it
            return [replies.CLOSING] * len(recipients)
        self._storing = True
        try:
            if self.letter.refusal is not None:
                self._drop()
                note_refusal(self._client, self._transaction.sender, self.letter.refusal)
                return [self.letter.refusal] * len(recipients)
            message = self._message(self.letter.take(), whole=True)
            answers = dict.fromkeys(self._circling, replies.LOOP)
            if message.recipients:
                answers |= await accept(
                    self._hall.writer, message, self._shipped_bytes + _size_bytes(message)
                )
            else:
                self._drop()
            self._hall.accepted += any(map(replies.is_queued, answers.values()))
            return [answers[recipient] for recipient in recipients]
        finally:
            self._give_back()

    def abandon(self) -> None:
        """Its end will not come; nothing to do if it has."""
        if self._storing:
            return
        self._abandoned = True
        if not self._shipping:
            self._drop()
        self._give_back()

    async def _ship(self, part: tuple[bytes, ...]) -> str:
        self._shipping = True
        try:
            message = self._message(part, whole=False)
            if not message.recipients:
                self.letter.refuse(replies.LOOP)
                return ""
            self._draft = self._draft or self._hall.writer.fresh_draft()
            self._shipped_bytes += _size_bytes(message)
            for fault in await self._hall.writer.push(message._replace(draft=self._draft)):
                self.letter.refuse(fault.reply)
                note_refusal(self._client, self._transaction.sender, fault.reason)
        finally:
            self._shipping = False
            self._give_back()
            if self._abandoned:
                self._drop()
        return ""

    def _message(self, pieces: tuple[bytes, ...], *, whole: bool) -> Message:
        """For those recipients for whom it does not go around in circles."""
        recipients = tuple(dict.fromkeys(self._transaction.recipients))
        self._look_for_loops(pieces, recipients)
        return Message(
            sender=self._transaction.sender,
            recipients=tuple(each for each in recipients if each not in self._circling),
            pieces=pieces,
            via=self._transaction.via,
            client=str(self._client),
            together=self._together,
            draft=self._draft,
            whole=whole,
        )

    def _look_for_loops(self, pieces: tuple[bytes, ...], recipients: tuple[str, ...]) -> None:
        """With SMTP, whose reply is one for all, it goes to all or none; so too once a draft was begun for all."""
        self._trace.feed(*pieces)
        found = self._trace.loops(recipients)
        for recipient in found.keys() - self._circling.keys():
            reason = f"mail loop: {found[recipient]}"
            note_refusal(self._client, self._transaction.sender, reason, recipient=recipient)
            self._circling |= dict.fromkeys(recipients if self._together or self._draft else [recipient])

    def _drop(self) -> None:
        if self._draft:
            self._hall.writer.drop(self._draft)
            self._draft = 0

    def _hold(self, size_bytes: int) -> bool:
        if not self._hall.hold_bytes(size_bytes):
            return False
        self._held_bytes += size_bytes
        return True

    def _give_back(self) -> None:
        self._hall.release_bytes(self._held_bytes)
        self._held_bytes = self.letter.kept_bytes = 0


def _size_bytes(message: Message) -> int:
    return sum(map(len, message.pieces))


def note_refusal(client: Client, sender: str, reply: str, **facts: Any) -> None:
    events.emit("intake.refused", client=str(client), sender=sender, reason=reply, **facts)
