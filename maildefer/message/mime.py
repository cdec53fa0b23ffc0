"""The `email` message that canonical messages are made of."""

from __future__ import annotations

from email._policybase import Compat32  # `email.policy` would load a header parser, which few processes need
from email.message import Message
from typing import Any


class _Canonical(Compat32):
    """Headers are in their wire form when they get here, and stay so.

    What is beyond ASCII in them is an address (RFC 6532), of which `email` would make one encoded word, and so no
    address at all.
    """

    def fold(self, name: str, value: Any) -> str:
        text = str(value)
        if text.isascii():
            return super().fold(name, value)
        folded = text if len(text) < _LINE else text.replace(", ", f",{self.linesep} ")
        return f"{name}: {folded}{self.linesep}"

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("utf-8", "surrogateescape")


_LINE = 70
_CANONICAL = _Canonical()


class MIMEPart(Message):
    """A part of the given type: `MIMEPart("text/plain", charset="utf-8")`; without a type it has no headers yet."""

    digest: bytes = b""
    """A hash of all content below, from which the boundary is made."""

    def __init__(self, type_: str | None = None, **params: Any) -> None:
        super().__init__(policy=_CANONICAL)
        if type_ is not None:
            self.add_header("Content-Type", type_, **params)
