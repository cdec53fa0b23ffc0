"""LMTP (RFC 2033): the same session with LHLO, and one reply for each recipient after the message."""

from __future__ import annotations

from maildefer.intake import replies
from maildefer.intake.outcomes import Stored
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.connection import Answer
from maildefer.intake.smtp.session import SmtpSession


class LmtpSession(SmtpSession):
    """An LMTP connection to the hall's queue."""

    lmtp = True
    protocol = "LMTP"

    def no_helo(self, argument: str) -> Answer:
        return replies.LHLO_INSTEAD

    def answer(self, outcomes: list[Stored]) -> tuple[Reply, ...]:
        return replies.for_each(outcomes)


LmtpSession.commands = {
    **SmtpSession.commands,
    b"LHLO": SmtpSession.ehlo,
    b"EHLO": LmtpSession.no_helo,
    b"HELO": LmtpSession.no_helo,
}
