"""LMTP (RFC 2033): the same session with LHLO, and one reply for each recipient after the message."""

from __future__ import annotations

from maildefer.intake import replies
from maildefer.intake.connection import Answer
from maildefer.intake.incoming import Incoming
from maildefer.intake.session import Session


class LmtpSession(Session):
    """An LMTP connection to the hall's queue."""

    lmtp = True
    protocol = "LMTP"

    def no_helo(self, argument: str) -> Answer:
        return replies.LHLO_INSTEAD

    async def answer(self, incoming: Incoming) -> str:
        return "\r\n".join(await incoming.store())


LmtpSession.commands = {
    **Session.commands,
    b"LHLO": Session.ehlo,
    b"EHLO": LmtpSession.no_helo,
    b"HELO": LmtpSession.no_helo,
}
