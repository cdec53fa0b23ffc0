"""Bare addresses of envelopes, headers and arguments: one, several, with names, as bytes or text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from maildefer.errors import AddressRefused

TASK_DOMAIN: Final = "task.invalid"
"""The domain of messages that are calls of tasks; no mail can come for it (RFC 2606), and front ends refuse it."""

Given = str | bytes | Iterable[str | bytes | None] | None

_PLAIN = re.compile(r"[^\s<>\"(),;:\\]+").fullmatch
_LINE_BREAK = re.compile(r"[\r\n](?![ \t\n])|\0").search  # and no fold of a header
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


def first(given: Given) -> str:
    """The first address, bare and in lower case, as routes and states compare it; empty if there is none.

    An address with a domain goes before a word without one, which is taken if there is no other.
    """
    found = every(given)
    for address in found:
        if "@" in address:
            return address.lower()
    return found[0].lower() if found else ""


def every(given: Given) -> list[str]:
    """All addresses in their order, bare, in their own case."""
    if given is None:
        return []
    if isinstance(given, bytes):
        return _parsed(given.decode("utf-8", "surrogateescape"))
    if isinstance(given, str):
        return _parsed(given)
    return [address for one in given for address in every(one)]


def sendable(text: str) -> list[str]:
    """All addresses in a text, for commands. Raises AddressRefused for what is more, or less, than addresses.

    Each stands there as it is: what was read together from further words, such as those of a line break that a header
    has lost, is none. A word without a domain is one where it stands alone, or between commas. A domain is in its form
    for the DNS, unless the local part is beyond ASCII, too.
    """
    if _LINE_BREAK(text.strip()):
        raise AddressRefused(text, "it goes over several lines")
    if _PLAIN(text) and text.isascii() and 0 < text.find("@") < len(text) - 1:
        return [text]
    found, shown = [], text
    if "=?" in text:
        from maildefer.message.mime.headers import properly_decode_header  # as below

        shown = properly_decode_header(text)
    words = {word.strip() for word in shown.split(",")}
    for address in _parsed(text):
        local, at, domain = address.rpartition("@")
        if address not in shown or not (local and domain if at else address in words):
            raise AddressRefused(text, f"{address} is no address")
        if local.isascii() and not domain.isascii():
            try:
                address = f"{local}@{domain.encode('idna').decode()}"
            except UnicodeError as fault:
                raise AddressRefused(text, f"its domain is none: {fault}") from fault
        found.append(address)
    return found


def _parsed(text: str) -> list[str]:
    if _PLAIN(text) and "=?" not in text:
        return [text]
    # The e-mail package is 4.5 MB: only for what is more than a bare address.
    from maildefer.message.mime.headers import addresses_in, properly_decode_header

    text = _CONTROL.sub(" ", text)
    found = [address for _, address in addresses_in(text) if address]
    if "=?" in text and not any("@" in address for address in found):  # all of it is one encoded word
        decoded = _CONTROL.sub(" ", properly_decode_header(text))
        found = [address for _, address in addresses_in(decoded) if address]
    return found
