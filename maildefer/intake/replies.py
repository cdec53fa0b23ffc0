"""The replies of SMTP and LMTP: codes of RFC 5321 and RFC 3463, texts as other servers have them.

Paths and system errors stay in the log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, assert_never

from maildefer.intake.outcomes import Refusal, Stored


class Progress(Enum):
    """What a reply says of the message that its client is about to send; `error_limits` counts by it."""

    NONE = "none"
    """The command brings no message on, such as NOOP and RSET, or it failed."""
    ONWARD = "onward"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, of one line or several."""

    code: int
    status: str
    """RFC 3463; empty where a reply has none."""
    text: str
    """With LF between its lines."""
    progress: Progress = Progress.NONE
    wire: bytes = field(init=False, repr=False, compare=False)
    """As it is sent; made once, as most replies are constants."""

    def __post_init__(self) -> None:
        status = f"{self.status} " if self.status else ""
        *lines, last = self.text.split("\n") if "\n" in self.text else (self.text,)
        wire = f"{self.code} {status}{last}\r\n"
        if lines:
            wire = "".join([f"{self.code}-{status}{line}\r\n" for line in lines]) + wire
        object.__setattr__(self, "wire", wire.encode())

    @property
    def failed(self) -> bool:
        """Whether it is a 4yz or a 5yz."""
        return self.code >= 400

    @property
    def permanent(self) -> bool:
        """Whether it is a 5yz: sending again won't help."""
        return self.code >= 500

    def __str__(self) -> str:
        return self.wire[:-2].decode()


SENDER_OK: Final = Reply(250, "2.1.0", "sender ok", Progress.ONWARD)
RECIPIENT_OK: Final = Reply(250, "2.1.5", "recipient ok", Progress.ONWARD)
START_DATA: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>", Progress.ONWARD)
RESET: Final = Reply(250, "2.0.0", "reset state")
NOOP: Final = Reply(250, "2.0.0", "ok")
VRFY: Final = Reply(252, "2.5.2", "cannot VRFY user; try RCPT to attempt delivery")
BYE: Final = Reply(221, "2.0.0", "bye")
TLS_READY: Final = Reply(220, "2.0.0", "ready to start TLS")
AUTHENTICATED: Final = Reply(235, "2.7.0", "authentication successful")
FORWARDED: Final = Reply(250, "2.0.0", "ok")

AUTH_LATER: Final = Reply(454, "4.7.0", "temporary authentication failure; try again later")
TOO_MANY_TRIES: Final = Reply(421, "4.7.0", "too many authentication failures; closing connection")
UNKNOWN: Final = Reply(500, "5.5.1", "command not recognized")
NO_BROWSERS: Final = Reply(421, "4.7.0", "non-SMTP command; closing connection")
RESPONSE_TOO_LONG: Final = Reply(500, "5.5.6", "authentication exchange line is too long")
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "line too long")
NOT_UTF8: Final = Reply(501, "5.5.2", "command is neither ASCII nor UTF-8")
UNPRINTABLE: Final = Reply(501, "5.5.2", "control characters are not allowed in a command")
SYNTAX_HELO: Final = Reply(501, "5.5.4", "Syntax: EHLO hostname")
SYNTAX_MAIL: Final = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address> [SP parameters]")
SYNTAX_RCPT: Final = Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
SYNTAX_DATA: Final = Reply(501, "5.5.4", "Syntax: DATA")
SYNTAX_BDAT: Final = Reply(521, "5.5.4", "Syntax: BDAT size [SP LAST]; closing connection")
SYNTAX_RSET: Final = Reply(501, "5.5.4", "Syntax: RSET")
SYNTAX_VRFY: Final = Reply(501, "5.5.4", "Syntax: VRFY address")
SYNTAX_STARTTLS: Final = Reply(501, "5.5.4", "Syntax: STARTTLS")
SYNTAX_XCLIENT: Final = Reply(501, "5.5.4", "Syntax: XCLIENT or XFORWARD, then NAME=VALUE ...")
BAD_RESPONSE: Final = Reply(501, "5.5.2", "cannot decode authentication response")
AUTH_CANCELLED: Final = Reply(501, "5.7.0", "authentication cancelled")
BAD_BODY: Final = Reply(501, "5.5.4", "unknown BODY value: 7BIT and 8BITMIME are known")
LHLO_INSTEAD: Final = Reply(500, "5.5.1", "command not recognized: this is LMTP, send LHLO")
NOT_HERE: Final = Reply(502, "5.5.1", "command not implemented")
HELO_FIRST: Final = Reply(503, "5.5.1", "send EHLO first")
NESTED: Final = Reply(503, "5.5.1", "MAIL transaction in progress; send RSET to drop it")
MAIL_FIRST: Final = Reply(503, "5.5.1", "need MAIL command")
RCPT_FIRST: Final = Reply(503, "5.5.1", "no valid recipients")
IN_CHUNKS: Final = Reply(503, "5.5.1", "BDAT message in progress; send RSET to drop it")
AUTH_NOT_NOW: Final = Reply(503, "5.5.1", "already authenticated, or MAIL transaction in progress")
NO_MECHANISM: Final = Reply(504, "5.5.4", "unrecognized authentication type: PLAIN and LOGIN are offered")
TLS_FIRST: Final = Reply(530, "5.7.0", "must issue a STARTTLS command first")
TLS_FIRST_FOR_AUTH: Final = Reply(
    538, "5.7.11", "encryption required for authentication; send STARTTLS first"
)
AUTH_FIRST: Final = Reply(530, "5.7.0", "authentication required")
AUTH_FAILED: Final = Reply(535, "5.7.8", "authentication credentials invalid")
NOT_FOR_YOU: Final = Reply(550, "5.7.0", "insufficient authorization: this command is for trusted relays")
ALREADY_TLS: Final = Reply(503, "5.5.1", "TLS already active")
UNKNOWN_PARAMETER: Final = Reply(555, "5.5.4", "parameter not recognized or not implemented")

NO_ROUTE: Final = Reply(550, "5.1.1", "user unknown: no handler takes mail for this address")
NO_RELAY: Final = Reply(554, "5.7.1", "relay access denied: mail for this domain is not accepted here")
NO_TABLE: Final = Reply(
    451, "4.3.5", "server configuration problem: no route for this queue; try again later"
)
BAD_SENDER: Final = Reply(553, "5.1.7", "bad sender address syntax")
BAD_RECIPIENT: Final = Reply(553, "5.1.3", "bad recipient address syntax")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "too many recipients; send the message again for the rest")
FULL: Final = Reply(452, "4.3.1", "insufficient system storage; try again later")
BUSY: Final = Reply(452, "4.3.1", "insufficient memory for messages in progress; try again later")
NO_POLICY: Final = Reply(451, "4.3.5", "policy service unavailable; try again later")
FAULT: Final = Reply(451, "4.3.0", "queue file write error; try again later")
INTERNAL: Final = Reply(451, "4.3.0", "internal error; try again later")
LOOP: Final = Reply(554, "5.4.6", "mail loop: too many hops, or delivered to this address before")
TOO_LARGE: Final = Reply(552, "5.3.4", "message size exceeds fixed limit")
CLOSING: Final = Reply(421, "4.3.2", "service shutting down, closing connection; try again later")
TIMEOUT: Final = Reply(421, "4.4.2", "timeout exceeded; closing connection")
TOO_MANY_CONNECTIONS: Final = Reply(421, "4.3.2", "too many connections; try again later")
TOO_MANY_OF_YOURS: Final = Reply(421, "4.7.0", "too many connections from your address; try again later")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "too many errors; closing connection")
TOO_MANY_COMMANDS: Final = Reply(421, "4.7.0", "too many commands without a message; closing connection")

NEEDS_UTF8: Final = Reply(553, "5.6.7", "non-ASCII address requires SMTPUTF8")
SOURCE_ROUTE: Final = Reply(553, "5.1.3", "source routes are not supported: give the address alone")

_WRITTEN: Final = re.compile(r"([45][0-9][0-9]) (?:([45]\.[0-9]{1,3}\.[0-9]{1,3}) )?([ -~]{1,500})").fullmatch


@lru_cache(maxsize=64)
def greeting(hostname: str, protocol: str) -> Reply:
    return Reply(220, "", f"{hostname} {protocol} maildefer")


@lru_cache(maxsize=64)
def lines(*text: str) -> Reply:
    """The reply of EHLO, a line for each extension; which are offered depends on the settings, and on little else."""
    return Reply(250, "", "\n".join(text))


def bad_parameter(fault: ValueError) -> Reply:
    return Reply(501, "5.5.4", str(fault))


def queued(keys: Sequence[str]) -> Reply:
    shown = " ".join(keys[:3]) + (" ..." if len(keys) > 3 else "")
    return Reply(250, "2.0.0", f"queued as {shown}", Progress.STORED)


def chunk_received(size_bytes: int) -> Reply:
    """An empty chunk brings no message on."""
    return Reply(250, "2.0.0", f"{size_bytes} octets", Progress.ONWARD if size_bytes else Progress.NONE)


def refused(refusal: Refusal) -> Reply:
    """Permanent only for what sending again can't cure."""
    match refusal:
        case Refusal.QUEUE_FULL:
            return FULL
        case Refusal.STORAGE_FAILED:
            return FAULT
        case Refusal.INTERNAL_ERROR:
            return INTERNAL
        case Refusal.DUE_REFUSED | Refusal.KEY_REUSED:
            return UNKNOWN_PARAMETER
        case Refusal.ADDRESS_REFUSED:
            return BAD_RECIPIENT
        case Refusal.MAIL_LOOP:
            return LOOP
        case Refusal.TOO_LARGE:
            return TOO_LARGE
        case Refusal.TOO_MUCH_HELD:
            return BUSY
        case _:
            assert_never(refusal)


def for_each(outcomes: Sequence[Stored]) -> tuple[Reply, ...]:
    """LMTP's replies: one for each recipient, in their order."""
    return tuple(queued([each.key]) if each.fault is None else refused(each.fault) for each in outcomes)


def for_all(outcomes: Sequence[Stored]) -> Reply:
    """SMTP's one reply for all recipients, who were pushed together or not at all.

    What may be tried again (4yz) comes before what may not (5yz).
    """
    faults = [refused(each.fault) for each in outcomes if each.fault is not None]
    if faults:
        return min(faults, key=lambda reply: reply.code)
    return queued([each.key for each in outcomes])


def written(text: str) -> Reply | None:
    """A refusal that a policy has written; None for what is no 4yz or 5yz."""
    if (found := _WRITTEN(text)) is None:
        return None
    return Reply(int(found[1]), found[2] or "", found[3])
