"""One message's envelope while it is being said."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Transaction:
    """From MAIL to the end of the message; RSET, EHLO and STARTTLS drop it."""

    sender: str
    via: str
    """The protocol, as the Received line has it (RFC 3848, RFC 6531)."""
    utf8: bool = False
    """SMTPUTF8 was asked for (RFC 6531)."""
    recipients: list[str] = field(default_factory=list)
    """Those that were accepted, in their order; LMTP answers for each, also where one is named twice."""
