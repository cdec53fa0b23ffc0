"""LMTP (RFC 2033): a session with LHLO, and after a message one reply for each recipient."""

from __future__ import annotations

from maildefer.intake import replies
from maildefer.intake.outcomes import Stored
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.connection import Answer
from maildefer.intake.smtp.session import SmtpSession


class LmtpSession(SmtpSession):
    """One LMTP connection."""

    lmtp = True
    protocol = "LMTP"

    def refuse_helo(self, argument: str) -> Answer:
        return replies.LHLO_INSTEAD

    def answer_message(self, outcomes: list[Stored]) -> tuple[Reply, ...]:
        return replies.for_each(outcomes)


LmtpSession.commands = {
    **SmtpSession.commands,
    b"LHLO": SmtpSession.ehlo,
    b"EHLO": LmtpSession.refuse_helo,
    b"HELO": LmtpSession.refuse_helo,
}
