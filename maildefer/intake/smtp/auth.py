"""AUTH (RFC 4954), on encrypted connections only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from maildefer import events
from maildefer.intake import replies
from maildefer.intake.replies import Reply
from maildefer.intake.smtp import sasl
from maildefer.intake.smtp.connection import Answer, Connection

_MAX_FAILURES: Final = 3

ExpectLine = Callable[[Callable[[bytes], Answer]], None]
"""Lets a function answer the next line, which is no command."""


class AuthDialogue:
    """All authentications that are tried on one connection."""

    def __init__(self, connection: Connection, expect_line: ExpectLine) -> None:
        self._connection = connection
        self._security = connection.context.security
        self._expect_line = expect_line
        self._failures = 0

    @property
    def offered(self) -> bool:
        """Whether EHLO offers it."""
        client = self._connection.client
        return self._security.credentials is not None and bool(client.tls) and not client.user

    def begin_exchange(self, argument: str) -> Answer:
        """Answer the command AUTH, with an initial response or without."""
        client = self._connection.client
        if self._security.credentials is None:
            return replies.NOT_HERE
        if not client.tls:
            return replies.TLS_FIRST_FOR_AUTH
        if client.user or self._connection.busy:
            return replies.AUTH_NOT_NOW
        name, _, initial = argument.partition(" ")
        if (mechanism := sasl.MECHANISMS.get(name.upper())) is None:
            return replies.NO_MECHANISM
        return self._continue_exchange(mechanism(initial.strip() or None), None)

    def _continue_exchange(self, dialogue: sasl.Dialogue, response: str | None) -> Answer:
        try:
            challenge = next(dialogue) if response is None else dialogue.send(response)
        except StopIteration as end:
            return self._check_credentials(end.value)
        except sasl.BadResponse:
            return replies.BAD_RESPONSE
        self._expect_line(lambda line: self._answer_response(dialogue, line))
        return Reply(334, "", challenge)

    def _answer_response(self, dialogue: sasl.Dialogue, line: bytes) -> Answer:
        if line == b"*":
            return replies.AUTH_CANCELLED
        return self._continue_exchange(dialogue, line.decode("ascii", "replace"))

    async def _check_credentials(self, identity: sasl.SaslIdentity) -> Reply | None:
        client, credentials = self._connection.client, self._security.credentials
        assert credentials is not None
        if (refusal := await credentials.refusal(identity.user, identity.password, client)) is None:
            client.user = identity.user
            events.emit("intake.authenticated", client=str(client), user=identity.user)
            return replies.AUTHENTICATED
        self._failures += refusal.permanent  # a temporary failure is no guess
        if self._failures < _MAX_FAILURES:
            return refusal
        self._connection.close(replies.TOO_MANY_TRIES)
        return None
