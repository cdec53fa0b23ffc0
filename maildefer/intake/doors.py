"""What a front end listens on: which socket, and what is spoken there."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """SMTP, offering STARTTLS where there is a certificate; SMTP that begins with TLS (RFC 8314); LMTP."""

    SMTP = "smtp"
    SMTPS = "smtps"
    LMTP = "lmtp"


class Door(NamedTuple):
    """An inherited listening socket."""

    fd: int
    kind: Kind


def read(text: str, default: Kind) -> Door:
    """`FD` or `FD:KIND`, as the command line has it. Raises ValueError."""
    number, colon, kind = text.partition(":")
    return Door(int(number), Kind(kind) if colon else default)
