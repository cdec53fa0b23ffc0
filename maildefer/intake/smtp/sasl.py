"""The two mechanisms of AUTH that everybody speaks, PLAIN (RFC 4616) and LOGIN: each a dialogue of base64 words."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Generator
from typing import Final, NamedTuple


class SaslIdentity(NamedTuple):
    """Who somebody says to be, and the proof."""

    user: str
    password: str


class BadResponse(Exception):
    """No base64, no UTF-8, or not what the mechanism wants."""


Dialogue = Generator[str, str, SaslIdentity]
"""Yields challenges, takes responses, returns a claim, or raises BadResponse."""


def plain(initial: str | None) -> Dialogue:
    """AUTHZID NUL AUTHCID NUL PASSWORD; who speaks for somebody else is refused."""
    words = _decoded((yield "") if initial is None else initial).split("\0")
    if len(words) != 3 or words[0] not in ("", words[1]) or not words[1]:
        raise BadResponse
    return SaslIdentity(words[1], words[2])


def login(initial: str | None) -> Dialogue:
    """Name and password, one after the other; not standardized, and still what some programs speak only."""
    user = _decoded((yield "VXNlcm5hbWU6") if initial is None else initial)
    if not user:
        raise BadResponse
    return SaslIdentity(user, _decoded((yield "UGFzc3dvcmQ6")))


MECHANISMS: Final[dict[str, Callable[[str | None], Dialogue]]] = {"PLAIN": plain, "LOGIN": login}


def _decoded(word: str) -> str:
    """`=` stands for an empty response (RFC 4954, section 4)."""
    if word == "=":
        return ""
    try:
        return binascii.a2b_base64(word, strict_mode=True).decode()
    except (ValueError, UnicodeError):
        raise BadResponse from None
