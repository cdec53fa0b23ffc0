"""AUTH (RFC 4954), once the connection is encrypted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.replies import Reply
from maildefer.intake.smtp import sasl
from maildefer.intake.smtp.connection import Answer

if TYPE_CHECKING:
    from maildefer.intake.smtp.session import SmtpSession

_MOST_TRIES: Final = 3


def offered(session: SmtpSession) -> bool:
    """Whether EHLO tells of it."""
    return (
        session.hall.security.credentials is not None and bool(session.client.tls) and not session.client.user
    )


class AuthDialogue:
    """One connection's attempts."""

    def __init__(self, session: SmtpSession) -> None:
        self._session = session
        self._tries = 0

    def begin(self, argument: str) -> Answer:
        """The command AUTH, with an initial response or without."""
        session = self._session
        if session.hall.security.credentials is None:
            return replies.NOT_HERE
        if not session.client.tls:
            return replies.TLS_FIRST_FOR_AUTH
        if session.client.user or session.busy:
            return replies.AUTH_NOT_NOW
        name, _, initial = argument.partition(" ")
        if (mechanism := sasl.MECHANISMS.get(name.upper())) is None:
            return replies.NO_MECHANISM
        return self._step(mechanism(initial.strip() or None), None)

    def _step(self, dialogue: sasl.Dialogue, response: str | None) -> Answer:
        try:
            challenge = next(dialogue) if response is None else dialogue.send(response)
        except StopIteration as end:
            return self._judge(end.value)
        except sasl.BadResponse:
            return replies.BAD_RESPONSE
        self._session.expect_line(lambda line: self._answer(dialogue, line))
        return Reply(334, "", challenge)

    def _answer(self, dialogue: sasl.Dialogue, line: bytes) -> Answer:
        if line == b"*":
            return replies.AUTH_CANCELLED
        return self._step(dialogue, line.decode("ascii", "replace"))

    async def _judge(self, claim: sasl.SaslIdentity) -> Reply | None:
        session = self._session
        credentials = session.hall.security.credentials
        assert credentials is not None
        if (refusal := await credentials.refusal(claim.user, claim.password, session.client)) is None:
            session.client.user = claim.user
            events.emit("intake.authenticated", client=str(session.client), user=claim.user)
            return replies.AUTHENTICATED
        self._tries += refusal.permanent  # what can't be looked up now is no guess
        if self._tries < _MOST_TRIES:
            return refusal
        session.close(replies.TOO_MANY_TRIES)
        return None
