"""What may be pushed: from any kind of message to its bytes and its envelope, without parsing it."""

from __future__ import annotations

import os

from maildefer.message.envelope import Envelope
from maildefer.message.request import MailRequest

_NONE = Envelope("", "")


def bytes_of(message: object) -> bytes:
    """The bytes to store. Bytes are kept as they are, as is a request's `Data` unless the request was changed (I9).

    Raises TypeError for what has no text of its own: what `str()` says of a file, None or a list is no message.
    """
    if isinstance(message, bytes):
        return message
    if isinstance(message, MailRequest):
        return message.to_bytes()
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if hasattr(message, "get_content_maintype"):  # of the `email` package
        return bytes(message.as_bytes())  # type: ignore[attr-defined]
    if not isinstance(message, str) and (
        type(message).__str__ is object.__str__ or isinstance(message, (os.PathLike, BaseException))
    ):
        raise TypeError(f"{type(message).__name__} is no message: {_meant(message)}")
    return str(message).encode("utf-8", "surrogateescape")


def envelope_of(message: object) -> Envelope:
    """A request's envelope as it came or was set; an empty recipient where there is none.

    Not what its headers say: whoever takes the entry reads those himself, and nothing is parsed for it here.
    """
    if not isinstance(message, MailRequest):
        return _NONE
    return Envelope(_given(message, "From"), _given(message, "To"))


def _meant(message: object) -> str:
    if hasattr(message, "read"):
        return "give what its .read() returns, of a file that is open for bytes"
    if isinstance(message, os.PathLike):
        return "give what the file holds, such as Path(…).read_bytes()"
    return "give bytes, a str, a message of the `email` package or of maildefer, or an object with a __str__ of its own"


def _given(message: MailRequest, name: str) -> str:
    try:
        found = object.__getattribute__(message, name)
    except AttributeError:  # it would be read from the headers
        return ""
    return found if isinstance(found, str) else ""
