"""What a front end listens on: which socket, and what is spoken there."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class SocketProtocol(StrEnum):
    """SMTP, offering STARTTLS where there is a certificate; SMTP that begins with TLS (RFC 8314); LMTP."""

    SMTP = "smtp"
    SMTPS = "smtps"
    LMTP = "lmtp"


class ListeningSocket(NamedTuple):
    """An inherited listening socket."""

    fd: int
    kind: SocketProtocol


def read(text: str, default: SocketProtocol) -> ListeningSocket:
    """`FD` or `FD:KIND`, as the command line has it. Raises ValueError."""
    number, colon, kind = text.partition(":")
    return ListeningSocket(int(number), SocketProtocol(kind) if colon else default)
