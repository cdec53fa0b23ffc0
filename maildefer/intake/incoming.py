"""One message from its first byte to the replies for its recipients."""

from __future__ import annotations

from typing import Any

from maildefer import events
from maildefer.intake.accept import accept
from maildefer.intake.client import Client
from maildefer.intake.data import Letter
from maildefer.intake.hall import Hall
from maildefer.intake.transaction import Transaction
from maildefer.intake.wire import Message
from maildefer.message.envelope import TOP_LIMIT_BYTES


class Incoming:
    """What is large goes to the writer in parts, as it comes; the rest with its end."""

    def __init__(self, hall: Hall, client: Client, transaction: Transaction, *, together: bool) -> None:
        """`together`: all recipients or none."""
        self._hall = hall
        self._client = client
        self._transaction = transaction
        self._together = together
        self._draft = 0
        self._shipping = self._storing = self._abandoned = False
        self._held_bytes = 0
        self.letter = Letter(
            hall.options.max_bytes - TOP_LIMIT_BYTES,
            hold=self._hold,
            part_bytes=hall.options.buffer_bytes,
            ship=self._ship,
        )

    async def store(self) -> list[str]:
        """The replies, in the order of the recipients; returns when all is durable, or has failed (I1)."""
        recipients = self._transaction.recipients
        self._storing = True
        try:
            if self.letter.refusal is not None:
                self._drop()
                note_refusal(self._client, self._transaction.sender, self.letter.refusal)
                return [self.letter.refusal] * len(recipients)
            answers = await accept(self._hall.line, self._message(self.letter.take(), whole=True))
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

    async def _ship(self, part: bytes) -> str:
        self._draft = self._draft or self._hall.line.fresh_draft()
        self._shipping = True
        try:
            for fault in await self._hall.line.push(self._message(part, whole=False)):
                self.letter.refuse(fault.reply)
                note_refusal(self._client, self._transaction.sender, fault.reason)
        finally:
            self._shipping = False
            self._give_back()
            if self._abandoned:
                self._drop()
        return ""

    def _message(self, data: bytes, *, whole: bool) -> Message:
        return Message(
            sender=self._transaction.sender,
            recipients=tuple(dict.fromkeys(self._transaction.recipients)),
            data=data,
            via=self._transaction.via,
            client=str(self._client),
            together=self._together,
            draft=self._draft,
            whole=whole,
        )

    def _drop(self) -> None:
        if self._draft:
            self._hall.line.drop(self._draft)
            self._draft = 0

    def _hold(self, size_bytes: int) -> bool:
        if not self._hall.hold(size_bytes):
            return False
        self._held_bytes += size_bytes
        return True

    def _give_back(self) -> None:
        self._hall.give_back(self._held_bytes)
        self._held_bytes = self.letter.kept_bytes = 0


def note_refusal(client: Client, sender: str, reply: str, **facts: Any) -> None:
    events.emit("intake.refused", client=str(client), sender=sender, reason=reply, **facts)
