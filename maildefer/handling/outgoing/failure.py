"""The error for a recipient to whom a message can't be delivered, ever, and what a server says that takes one."""

from __future__ import annotations

import re
from typing import Final

from maildefer.handling.outcomes import Reject
from maildefer.message.notices.config import EXPIRED
from maildefer.message.outgoing.refusals import ServerReply, is_final, text_of

_STATUS: Final = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})\b")


class DeliveryFailed(Reject):
    """A final failure: `server` is empty where none was asked. Its text is the reason of the dead letter.

    Where `expired_seconds` is given, the message was tried, or its destination was down, for as long; the reply is the
    last one.
    """

    def __init__(
        self, recipient: str, reply: ServerReply, server: str = "", expired_seconds: float | None = None
    ) -> None:
        self.recipient = recipient
        self.server = server
        self.is_untried = not server
        self.code = reply[0]
        self.words = text_of(reply[1])
        self.is_expired = expired_seconds is not None
        self.status = status_of(reply)
        """The enhanced status (RFC 3463), the server's own if it gave one."""
        if self.is_expired and not self.status.startswith("5"):
            self.status = EXPIRED
        text = f"{recipient}: {said(reply, server)}"
        if expired_seconds is not None:
            text = f"given up after {expired_seconds / 3600:.1f} hours: {text}"
        super().__init__(text)


class Relayed:
    """What a server has said that has taken a message, for a report; as a `DeliveryFailed` has it."""

    def __init__(self, reply: ServerReply, server: str) -> None:
        self.server = server
        self.code = reply[0]
        self.words = text_of(reply[1])
        self.status = status_of(reply)


def said(reply: ServerReply, server: str) -> str:
    """A reply and who gave it, in one line."""
    words = f"{reply[0]} {text_of(reply[1])}" if reply[0] > 0 else text_of(reply[1])
    return f"{words} ({server})" if server else words


def status_of(reply: ServerReply) -> str:
    """The enhanced status in a reply's words, if it fits the code; else the one that says only as much as the code."""
    kind = "5" if is_final(reply[0]) else "2" if 200 <= reply[0] < 300 else "4"
    found = _STATUS.match(text_of(reply[1]))
    return found[0] if found is not None and found[1] == kind else f"{kind}.0.0"
