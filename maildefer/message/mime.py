"""The `email` message that canonical messages are made of."""

from __future__ import annotations

from email.message import Message
from typing import Any


class MIMEPart(Message):
    """A part of the given type: `MIMEPart("text/plain", charset="utf-8")`; without a type it has no headers yet."""

    digest: bytes = b""
    """A hash of all content below, from which the boundary is made."""

    def __init__(self, type_: str | None = None, **params: Any) -> None:
        super().__init__()
        if type_ is not None:
            self.add_header("Content-Type", type_, **params)
