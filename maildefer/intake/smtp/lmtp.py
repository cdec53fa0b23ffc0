"""LMTP (RFC 2033): the same session with LHLO, and one reply for each recipient after the message."""

from __future__ import annotations

from maildefer.intake import replies
from maildefer.intake.smtp.connection import Answer
from maildefer.intake.smtp.incoming_message import IncomingMessage
from maildefer.intake.smtp.session import SmtpSession


class LmtpSession(SmtpSession):
    """An LMTP connection to the hall's queue."""

    lmtp = True
    protocol = "LMTP"

    def no_helo(self, argument: str) -> Answer:
        return replies.LHLO_INSTEAD

    async def answer(self, incoming: IncomingMessage) -> str:
        return "\r\n".join(await incoming.store())


LmtpSession.commands = {
    **SmtpSession.commands,
    b"LHLO": SmtpSession.ehlo,
    b"EHLO": LmtpSession.no_helo,
    b"HELO": LmtpSession.no_helo,
}
