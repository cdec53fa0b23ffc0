"""Parses the arguments of MAIL FROM, RCPT TO and EHLO: paths and parameters (RFC 5321, section 4.1.2).

It uses regular expressions: the parser of the e-mail package, which aiosmtpd uses, takes 50 times as long and 4 MB, and
makes other addresses of some that are wrong.
"""

from __future__ import annotations

import re
import socket
from typing import Final, NamedTuple

from maildefer.message.envelope import encode_address

_WORD: Final = r'[^\s<>"\\()\[\],:;@]+'
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_DOMAIN: Final = rf"(?:{_WORD}|\[[^\s<>\[\]]+\])"
# In angle brackets, or bare as some clients send it. An address without a domain is for `postmaster`, and for LMTP.
_PATH: Final = re.compile(
    rf"\s*(?:<((?:{_WORD}|{_QUOTED})(?:@{_DOMAIN})?|)>|({_WORD}@{_DOMAIN}))(?:\s+(.*))?", re.DOTALL
).fullmatch
_ROUTE: Final = re.compile(r"\s*<?\s*@[^\s<>:]*:").match
_PARAMETER: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a0-\U0010ffff]+))?").fullmatch
_DOT_STRING: Final = re.compile(r'[^\s<>"\\()\[\],:;@.]+(?:\.[^\s<>"\\()\[\],:;@.]+)*').fullmatch
_NAME: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}").fullmatch
_LOCAL_PART_BYTES: Final = 64  # RFC 5321, section 4.5.3.1, as is the domain's
_DOMAIN_BYTES: Final = 255


class Path(NamedTuple):
    """An address without its angle brackets, empty for the null sender, and the parameters after it."""

    address: str
    parameters: str


def path(text: str) -> Path | None:
    """Parse a path; None for what is none, and for a source route (see `is_source_route`)."""
    if (found := _PATH(text)) is None:
        return None
    bracketed, bare, parameters = found.groups()
    address = bare if bracketed is None else bracketed
    if address.endswith("]") and not _is_literal(address[address.rindex("[") + 1 : -1]):
        return None
    return Path(_unquoted(address) if address[:1] == '"' else address, parameters or "")


def is_too_long(address: str) -> bool:
    """Whether the local part or the domain exceeds RFC 5321, section 4.5.3.1, in octets of UTF-8."""
    if len(address) <= _LOCAL_PART_BYTES // 4:  # a character has four octets at most
        return False
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    return (
        len(local.encode(errors="surrogateescape")) > _LOCAL_PART_BYTES
        or len(domain.encode(errors="surrogateescape")) > _DOMAIN_BYTES
    )


def is_valid(address: str) -> bool:
    """Whether it has no excessive length, and can stand in an envelope."""
    if is_too_long(address):
        return False
    try:
        encode_address(address)
    except ValueError:
        return False
    return True


def is_source_route(text: str) -> bool:
    """Whether it is `<@relay,@other:user@domain>`, which is obsolete and asks a host to relay."""
    return _ROUTE(text) is not None


def parameters(text: str) -> dict[str, str] | None:
    """Parse parameters: names in upper case, values as given or empty; None for a wrong syntax."""
    found: dict[str, str] = {}
    for word in text.split():
        if (match := _PARAMETER(word)) is None or match[1].upper() in found:
            return None
        found[match[1].upper()] = match[2] or ""
    return found


def greeting_name(text: str) -> str | None:
    """The argument of EHLO: any one word, since many clients give a wrong name (section 4.1.4)."""
    name = text.strip()
    return name if _NAME(name) else None


def _unquoted(address: str) -> str:
    """The address without needless quotes: `"ann"@b` and `"a\\nn"@b` are ann's mailbox (section 4.1.2)."""
    quoted, _, domain = address.rpartition('"')
    local = re.sub(r"\\(.)", r"\1", quoted[1:])
    if _DOT_STRING(local):
        return local + domain
    escaped = re.sub(r'(["\\])', r"\\\1", local)
    return f'"{escaped}"{domain}'


def _is_literal(text: str) -> bool:
    """Whether it is such as `192.0.2.1` or `IPv6:2001:db8::1` (section 4.1.3)."""
    family, address = (socket.AF_INET6, text[5:]) if text[:5].upper() == "IPV6:" else (socket.AF_INET, text)
    try:
        socket.inet_pton(family, address)
    except OSError:
        return False
    return True
