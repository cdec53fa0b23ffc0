"""What the client is told: codes of RFC 5321 and RFC 3463; paths and system errors stay in the log."""

from __future__ import annotations

import re
from typing import Final

from maildefer.errors import AddressRefused, MaildeferError, NoSpace, QuotaExceeded

SENDER_OK: Final = "250 2.1.0 sender ok"
RECIPIENT_OK: Final = "250 2.1.5 recipient ok"
RESET: Final = "250 2.0.0 nothing is left of it"
NOOP: Final = "250 2.0.0 nothing was done"
VRFY: Final = "252 2.5.2 no address is verified; send, and see"
BYE: Final = "221 2.0.0 bye"
TLS_READY: Final = "220 2.0.0 ready for TLS"
AUTHENTICATED: Final = "235 2.7.0 welcome"
FORWARDED: Final = "250 2.0.0 noted"

AUTH_LATER: Final = "454 4.7.0 nobody can look that up now; try again later"
TOO_MANY_TRIES: Final = "421 4.7.0 too many wrong passwords; closing"
UNKNOWN: Final = "500 5.5.1 no such command here"
NO_BROWSERS: Final = "421 4.7.0 this is no web server; closing"
RESPONSE_TOO_LONG: Final = "500 5.5.6 this response is too long"
LINE_TOO_LONG: Final = "500 5.5.2 this line is too long"
NOT_UTF8: Final = "501 5.5.2 this is neither ASCII nor UTF-8"
UNPRINTABLE: Final = "501 5.5.2 control characters have no place in a command"
SYNTAX_HELO: Final = "501 5.5.4 say who you are in one word"
SYNTAX_MAIL: Final = "501 5.5.4 Syntax: MAIL FROM:<address> [SP parameters]"
SYNTAX_RCPT: Final = "501 5.5.4 Syntax: RCPT TO:<address>"
SYNTAX_DATA: Final = "501 5.5.4 Syntax: DATA"
SYNTAX_BDAT: Final = "521 5.5.4 Syntax: BDAT size [SP LAST]; closing"
SYNTAX_RSET: Final = "501 5.5.4 Syntax: RSET"
SYNTAX_VRFY: Final = "501 5.5.4 Syntax: VRFY address"
SYNTAX_STARTTLS: Final = "501 5.5.4 Syntax: STARTTLS"
SYNTAX_XCLIENT: Final = "501 5.5.4 Syntax: XCLIENT or XFORWARD, then NAME=VALUE ..."
BAD_RESPONSE: Final = "501 5.5.2 this is no response to it"
AUTH_CANCELLED: Final = "501 5.7.0 cancelled"
BAD_BODY: Final = "501 5.5.4 BODY is 7BIT or 8BITMIME"
LHLO_INSTEAD: Final = "500 5.5.1 this is LMTP: say LHLO"
NOT_HERE: Final = "502 5.5.1 this is not done here"
HELO_FIRST: Final = "503 5.5.1 say EHLO first"
NESTED: Final = "503 5.5.1 there was MAIL already; RSET drops it"
MAIL_FIRST: Final = "503 5.5.1 say MAIL first"
RCPT_FIRST: Final = "503 5.5.1 no recipient was accepted"
IN_CHUNKS: Final = "503 5.5.1 the message comes by BDAT; RSET drops it"
AUTH_NOT_NOW: Final = "503 5.5.1 too late: say AUTH once, before MAIL"
NO_MECHANISM: Final = "504 5.5.4 there is PLAIN, and there is LOGIN"
TLS_FIRST: Final = "530 5.7.0 say STARTTLS first"
TLS_FIRST_FOR_AUTH: Final = "538 5.7.11 say STARTTLS first"
AUTH_FIRST: Final = "530 5.7.0 say AUTH first"
AUTH_FAILED: Final = "535 5.7.8 this name and this password do not belong together"
NOT_FOR_YOU: Final = "550 5.7.0 this is for trusted relays only"
ALREADY_TLS: Final = "503 5.5.1 this is TLS already"
UNKNOWN_PARAMETER: Final = "555 5.5.4 this parameter is not known here"

NO_ROUTE: Final = "550 5.1.1 no handler takes mail for this address"
NO_RELAY: Final = "554 5.7.1 relay access denied: mail for this domain is not taken here"
NO_TABLE: Final = "451 4.3.5 no route is configured for this queue; try again later"
BAD_SENDER: Final = "553 5.1.7 this sender's address can't be used"
BAD_RECIPIENT: Final = "553 5.1.3 this recipient's address can't be used"
TOO_MANY_RECIPIENTS: Final = "452 4.5.3 too many recipients; send the message again for the rest"
FULL: Final = "452 4.3.1 the queue can't take more now; try again later"
BUSY: Final = "452 4.3.1 too much mail in hand; try again later"
NO_POLICY: Final = "451 4.3.5 the policy can't be asked now; try again later"
FAULT: Final = "451 4.3.0 the queue can't be written to now; try again later"
INTERNAL: Final = "451 4.3.0 internal error; try again later"
LOOP: Final = "554 5.4.6 this message goes around in circles"
TOO_LARGE: Final = "552 5.3.4 the message is too large"
CLOSING: Final = "421 4.3.2 closing, try again later"
TIMEOUT: Final = "421 4.4.2 nothing came for too long; closing"
TOO_MANY_CONNECTIONS: Final = "421 4.3.2 too many connections; try again later"
TOO_MANY_OF_YOURS: Final = "421 4.7.0 too many connections from your address; try again later"
TOO_MANY_ERRORS: Final = "421 4.7.0 too many errors; closing"
TOO_MANY_COMMANDS: Final = "421 4.7.0 too many commands without a message; closing"

NEEDS_UTF8: Final = "553 5.6.7 an address beyond ASCII needs SMTPUTF8"
SOURCE_ROUTE: Final = "553 5.1.3 source routes are not taken: give the address alone"


_CHUNK: Final = re.compile(r"250 2\.0\.0 [1-9]\d* octets").fullmatch
_QUEUED: Final = "250 2.0.0 queued as "


def queued(keys: list[str]) -> str:
    return _QUEUED + " ".join(keys[:3]) + (" ..." if len(keys) > 3 else "")


def chunk_taken(size_bytes: int) -> str:
    return f"250 2.0.0 {size_bytes} octets"


def is_chunk_taken(reply: str) -> bool:
    """Whether it brings a message on; an empty chunk does not."""
    return _CHUNK(reply) is not None


def is_queued(reply: str) -> bool:
    """Whether a message was taken, for one of its recipients at least."""
    return _QUEUED in reply


def refusal(fault: MaildeferError) -> str:
    """The reply for a push that failed: permanent only for what sending again can't cure."""
    match fault:
        case NoSpace() | QuotaExceeded():
            return FULL
        case AddressRefused():
            return BAD_RECIPIENT
        case _:
            return FAULT
