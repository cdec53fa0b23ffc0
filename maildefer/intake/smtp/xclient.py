"""XCLIENT and XFORWARD (Postfix): a trusted relay gives the attributes of its own client.

XCLIENT begins the session anew as that client's, for the policy too; XFORWARD only names the client of the next
message, for the Received line and the log.
"""

from __future__ import annotations

import re
from typing import Final

from maildefer.intake import replies
from maildefer.intake.access.networks import is_address
from maildefer.intake.client import plain_address
from maildefer.intake.replies import Reply
from maildefer.intake.smtp.connection import Answer, Connection

XCLIENT: Final = "NAME ADDR PORT PROTO HELO LOGIN"
XFORWARD: Final = "NAME ADDR PORT PROTO HELO SOURCE"
_UNKNOWN: Final = {"[UNAVAILABLE]", "[TEMPUNAVAIL]"}
_XTEXT: Final = re.compile(r"\+([0-9A-F]{2})")
_VALUE: Final = re.compile(r"[\x21-\x7e]{0,255}").fullmatch


def allowed(connection: Connection) -> bool:
    """Whether EHLO offers them, by the address of the connection itself."""
    return connection.context.security.forwarders.has(connection.origin)


def xclient(connection: Connection, argument: str) -> Answer:
    if (given := _given_attributes(connection, argument, XCLIENT)) is None or isinstance(given, Reply):
        return given or replies.SYNTAX_XCLIENT
    connection.reset_session()
    client = connection.client
    client.name = given.get("NAME", "")
    client.address = given.get("ADDR", client.address)
    client.port = int(given.get("PORT") or 0)
    client.user = given.get("LOGIN", "")
    return connection.greet()


def xforward(connection: Connection, argument: str) -> Answer:
    if (given := _given_attributes(connection, argument, XFORWARD)) is None or isinstance(given, Reply):
        return given or replies.SYNTAX_XCLIENT
    connection.client.forwarded |= given  # it comes in several commands
    return replies.FORWARDED


def _given_attributes(connection: Connection, argument: str, known: str) -> dict[str, str] | Reply | None:
    """The attributes; the reply where the command is not allowed, or not now; None for a wrong syntax."""
    if not allowed(connection):
        return replies.NOT_FOR_YOU
    return replies.NESTED if connection.busy else _parsed_attributes(argument, known.split())


def _parsed_attributes(text: str, known: list[str]) -> dict[str, str] | None:
    """Parse attributes: decoded, and empty where the relay does not know; None for a wrong syntax."""
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
