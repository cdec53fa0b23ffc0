"""What may be pushed: from any kind of message to its bytes and its envelope, without parsing it."""

from __future__ import annotations

from maildefer.message.envelope import Envelope
from maildefer.message.request import MailRequest

_NONE = Envelope("", "")


def bytes_of(message: object) -> bytes:
    """The bytes to store. Bytes are kept as they are, as is a request's `Data` unless the request was changed (I9)."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, MailRequest):
        return message.to_bytes()
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if hasattr(message, "get_content_maintype"):  # of the `email` package
        return bytes(message.as_bytes())  # type: ignore[attr-defined]
    return str(message).encode("utf-8", "surrogateescape")


def envelope_of(message: object) -> Envelope:
    """A request's envelope as it came or was set; an empty recipient where there is none.

    Not what its headers say: whoever takes the entry reads those himself, and nothing is parsed for it here.
    """
    if not isinstance(message, MailRequest):
        return _NONE
    return Envelope(_given(message, "From"), _given(message, "To"))


def _given(message: MailRequest, name: str) -> str:
    try:
        found = object.__getattribute__(message, name)
    except AttributeError:  # it would be read from the headers
        return ""
    return found if isinstance(found, str) else ""
