"""The client of a connection, as far as it is known by now."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Final

# What has a meaning of its own in a trace field: comments, quoted strings, routes, the end of the field.
_SPECIAL: Final = re.compile(r'[^!-~]|[()<>\[\]"\\;,@]').sub
# So that no line is cut in the middle of a comment, see `envelope.CLIENT_CHARACTERS`.
_NAME_CHARACTERS: Final = 100
_LITERAL: Final = re.compile(r"\[[0-9A-Za-z.:]+\]").fullmatch


@dataclass(slots=True, kw_only=True)
class Client:
    """Facts of a client. `address` is empty on a socket file; behind a trusted proxy, both are what that says."""

    address: str = ""
    port: int = 0
    name: str = ""
    """Its name in the domain name system, as a trusted proxy says; nothing is looked up here."""
    helo: str = ""
    extended: bool = False
    """Whether the client has greeted with EHLO or LHLO."""
    tls: str = ""
    """The version of the encryption, such as TLSv1.3; empty without."""
    user: str = ""
    """The name with which it has authenticated."""
    forwarded: dict[str, str] = field(default_factory=dict)
    """The client of its next message, as it says by XFORWARD: for the log and the Received line only."""

    @classmethod
    def of(cls, transport: asyncio.BaseTransport) -> Client:
        peer = transport.get_extra_info("peername")
        if not isinstance(peer, tuple):
            return cls()
        return cls(address=plain_address(peer[0]), port=peer[1])

    def forget(self) -> None:
        """Forget what was said before STARTTLS (RFC 3207, section 4.2)."""
        self.helo = self.user = ""
        self.forwarded = {}
        self.extended = False

    def __str__(self) -> str:
        """The client in a Received line (RFC 5321, section 4.4), safe whatever the client says of itself."""
        text = _neutral(self.helo) or "unknown"
        if self.address:
            literal = f"[IPv6:{self.address}]" if ":" in self.address else f"[{self.address}]"
            text += f" ({_neutral(self.name)} {literal})" if self.name else f" ({literal})"
        if self.forwarded:
            said = self.forwarded
            literal = f"[{said['ADDR']}]" if said.get("ADDR") else ""
            names = (_neutral(said.get("HELO", "")), _neutral(said.get("NAME", "")))
            text += f" (for {' '.join(filter(None, (*names, literal)))})"
        return text


def _neutral(name: str) -> str:
    """A name, or an address in brackets; other characters become question marks, as with Postfix."""
    return name if _LITERAL(name) else _SPECIAL("?", name)[:_NAME_CHARACTERS]


def plain_address(address: str) -> str:
    """The address without a scope; an IPv4 address as such, where a socket for both shows it as IPv6."""
    return address.removeprefix("::ffff:").partition("%")[0] if ":" in address else address
