"""XCLIENT and XFORWARD, by Postfix's descriptions: a trusted relay says for whom it speaks.

XCLIENT begins the session anew as if that client had come itself, for the policy too; XFORWARD only tells whose message
it is, for the Received line and the log.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from maildefer.intake import replies
from maildefer.intake.access.networks import is_address
from maildefer.intake.client import plain_address
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.connection import Answer

if TYPE_CHECKING:
    from maildefer.intake.smtp.session import SmtpSession

XCLIENT: Final = "NAME ADDR PORT PROTO HELO LOGIN"
XFORWARD: Final = "NAME ADDR PORT PROTO HELO SOURCE"
_UNKNOWN: Final = {"[UNAVAILABLE]", "[TEMPUNAVAIL]"}
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
_VALUE: Final = re.compile(r"[\x21-\x7e]{0,255}").fullmatch


def allowed(session: SmtpSession) -> bool:
    """Whether EHLO tells of them: by where the connection comes from, whatever was said since."""
    return session.hall.security.forwarders.has(session.origin)


def xclient(session: SmtpSession, argument: str) -> Answer:
    if (said := _said(session, argument, XCLIENT)) is None or isinstance(said, Reply):
        return said or replies.SYNTAX_XCLIENT
    session.forget()
    client = session.client
    client.name = said.get("NAME", "")
    client.address = said.get("ADDR", client.address)
    client.port = int(said.get("PORT") or 0)
    client.user = said.get("LOGIN", "")
    return session.greet()


def xforward(session: SmtpSession, argument: str) -> Answer:
    if (said := _said(session, argument, XFORWARD)) is None or isinstance(said, Reply):
        return said or replies.SYNTAX_XCLIENT
    session.client.forwarded |= said  # it comes in several commands
    return replies.FORWARDED


def _said(session: SmtpSession, argument: str, known: str) -> dict[str, str] | Reply | None:
    """Or the reply for who must not say it, or not now; None for a wrong syntax."""
    if not allowed(session):
        return replies.NOT_FOR_YOU
    return replies.NESTED if session.busy else _attributes(argument, known.split())


def _attributes(text: str, known: list[str]) -> dict[str, str] | None:
    """What is known of it, without its encoding, and empty where the relay does not know; None for a wrong syntax."""
    found: dict[str, str] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        value = _XTEXT.sub(lambda match: chr(int(match[1], 16)), value)
        if not equals or name.upper() not in known or not _VALUE(value):
            return None
        found[name.upper()] = "" if value.upper() in _UNKNOWN else value
    if "ADDR" in found:
        found["ADDR"] = plain_address(found["ADDR"].removeprefix("IPV6:").removeprefix("IPv6:"))
        if found["ADDR"] and not is_address(found["ADDR"]):
            return None
    if (port := found.get("PORT")) and not (port.isdigit() and int(port) <= 65535):
        return None
    return found or None
