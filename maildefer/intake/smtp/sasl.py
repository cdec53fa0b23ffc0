"""The mechanisms of AUTH: PLAIN (RFC 4616) and LOGIN, each a dialogue of base64 words."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator
from typing import Final, NamedTuple


class SaslIdentity(NamedTuple):
    """A user's name and password."""

    user: str
    password: str


class BadResponse(Exception):
    """A response is no base64, no UTF-8, or not what the mechanism needs."""


Dialogue = Generator[str, str, SaslIdentity]
"""Yields challenges, takes responses, returns the identity, or raises BadResponse."""


def plain(initial: str | None) -> Dialogue:
    """AUTHZID NUL AUTHCID NUL PASSWORD; another user's AUTHZID is refused."""
    words = _decoded((yield "") if initial is None else initial).split("\0")
    if len(words) != 3 or words[0] not in ("", words[1]) or not words[1]:
        raise BadResponse
    return SaslIdentity(words[1], words[2])


def login(initial: str | None) -> Dialogue:
    """Name and password, one after the other; not standardized, but the only mechanism of some programs."""
    user = _decoded((yield "VXNlcm5hbWU6") if initial is None else initial)
    if not user:
        raise BadResponse
    return SaslIdentity(user, _decoded((yield "UGFzc3dvcmQ6")))


MECHANISMS: Final[dict[str, Callable[[str | None], Dialogue]]] = {"PLAIN": plain, "LOGIN": login}


def _decoded(word: str) -> str:
    """Decode a response; `=` stands for an empty one (RFC 4954, section 4)."""
    if word == "=":
        return ""
    try:
        return binascii.a2b_base64(word, strict_mode=True).decode()
    except (ValueError, UnicodeError):
        raise BadResponse from None
