"""What the client is told: codes of RFC 5321 and RFC 3463; paths and system errors stay in the log."""

from __future__ import annotations

from typing import Final

from maildefer.errors import AddressRefused, MaildeferError, NoSpace, QuotaExceeded

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
LOOP: Final = "554 5.4.6 too many hops: this message goes around in circles"
TOO_LARGE: Final = "552 5.3.4 the message is too large"
CLOSING: Final = "421 4.3.2 closing, try again later"
TIMEOUT: Final = "421 4.4.2 nothing came for too long; closing"
TOO_MANY_CONNECTIONS: Final = "421 4.3.2 too many connections; try again later"


def queued(keys: list[str]) -> str:
    return f"250 2.0.0 queued as {' '.join(keys[:3])}" + (" ..." if len(keys) > 3 else "")


def refusal(fault: MaildeferError) -> str:
    """The reply for a push that failed: permanent only for what sending again can't cure."""
    match fault:
        case NoSpace() | QuotaExceeded():
            return FULL
        case AddressRefused():
            return BAD_RECIPIENT
        case _:
            return FAULT
