"""The classes of `email`, adapted: those that are read, and those of canonical messages."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator
from email._policybase import Compat32  # `email.policy` would load a header parser, which few processes need
from email.message import Message
from typing import Any

from maildefer.message.mime.content_headers import ContentEncoding
from maildefer.message.mime.mail import MailBase
from maildefer.message.mime.parameters import decoded
from maildefer.message.mime.transfer_encoding import encode_body
from maildefer.message.mime.wire_form import Item, WireForm, ends_with_empty_line


class Part(Message):
    """A message whose parameters are read in one pass."""

    # While it is read: the offsets of its beginning, its body, and its end.
    start = body_at = end = 0
    known_type: str | None = None
    """The type while the message is read, when the parser reads it for each part."""

    def get_content_type(self) -> str:
        return self.known_type or super().get_content_type()

    def _get_params_preserve(
        self, failobj: Any, header: str
    ) -> Any:  # `email` asks this whatever it is asked
        value = self.get(header)
        return failobj if value is None else decoded(str(value))


class _Canonical(Compat32):
    """A policy that writes headers in the form that they have already.

    `email` would make one encoded word of an address beyond ASCII (RFC 6532), which is no address; and its folding
    costs the square of a value's length.
    """

    def fold(self, name: str, value: Any) -> str:
        return _folded(name, str(value), self.linesep)

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("utf-8", "surrogateescape")


def _folded(name: str, text: str, line_end: str) -> str:
    if not text.isascii():
        folded = text if len(text) < _LINE else text.replace(", ", ",\n ")
    elif len(text) > _LONGEST_LINE:
        folded = text.replace("; ", ";\n ")
    else:
        folded = text
    return f"{name}: {_FOLD.sub(line_end, _BREAK.sub(' ', folded))}{line_end}"


_BREAK = re.compile(r"(?:\r\n|\r|\n)(?![ \t\r\n])")  # which would begin another header
_FOLD = re.compile(r"[\r\n]+")
_LINE = 70
_LONGEST_LINE = 900  # of the 998 bytes that RFC 5322 allows
_CANONICAL = _Canonical(max_line_length=0)


class MIMEPart(Part):
    """A part of the given type: `MIMEPart("text/plain", charset="utf-8")`; without a type it has no headers yet."""

    digest: bytes = b""
    """A hash of the content, from which the boundary is made."""
    wire_form: WireForm | None = None
    """The text that was read, and is written again."""
    gaps: tuple[str, ...] | None = None
    """The text before, between and behind its parts."""
    line_end: str = "\n"

    def __init__(self, type_: str | None = None, **params: Any) -> None:
        super().__init__(policy=_CANONICAL)
        if type_ is not None:
            self.add_header("Content-Type", type_, **params)

    is_block = False
    """Whether it is a group of fields of a delivery report, without a body and the empty line before it."""

    def as_string(self, unixfrom: bool = False, maxheaderlen: int = 0, policy: Any = None) -> str:
        """The text, with unchanged parts as they were read, unless a policy or a length asks for new folds."""
        if policy is not None or maxheaderlen or not self._is_whole():
            return super().as_string(unixfrom, maxheaderlen, policy)
        first = f"{self.get_unixfrom() or f'From nobody {time.ctime()}'}{self.line_end}" if unixfrom else ""
        return first + "".join(self._texts())

    def as_bytes(self, unixfrom: bool = False, policy: Any = None) -> bytes:
        """As `as_string`, in bytes."""
        if policy is not None or not self._is_whole():
            return super().as_bytes(unixfrom, policy)
        return self.as_string(unixfrom).encode("utf-8", "surrogateescape")

    def add_text(self, content: str) -> None:
        """Take over a text: in ASCII, else in UTF-8, or in the charset that the type declares."""
        self._take(content, self.get_content_type())

    def extract_payload(self, mail: MailBase) -> None:
        """Take over the body of `mail`, by its type and transfer encoding."""
        coding = mail.content_encoding
        for name in ("Content-Type", "Content-Transfer-Encoding"):
            value, params = coding[name]
            if value:
                del self[name]
                self.add_header(name, value, **params)
        self._take(mail.body, self.get_content_type())

    def _take(self, body: str | bytes | None, ctype: str) -> None:
        own = ContentEncoding(MailBase(self))
        text, encoding, params = encode_body(body, ctype, own["Content-Type"][1], own)
        del self["Content-Type"]
        self.add_header("Content-Type", ctype, **params)
        if encoding is not None:
            del self["Content-Transfer-Encoding"]
            self["Content-Transfer-Encoding"] = encoding
        self.set_payload(text)

    def text_below_head(self) -> str:
        """The text below the headers: the body, or the parts and the text around them."""
        _, *texts = self._texts()
        return "".join(texts)

    def _is_whole(self) -> bool:
        """Whether all content can be written here; other content is written by `email`."""
        payload = self._content()
        if not isinstance(payload, list):
            return payload is None or isinstance(payload, str)
        return (
            self.gaps is not None
            and len(self.gaps) == len(payload) + 1
            and all(isinstance(part, MIMEPart) and part._is_whole() for part in payload)
        )

    def _content(self) -> Any:
        return vars(self).get("_payload")

    def _texts(self) -> Iterator[str]:
        payload = self._content()
        yield self._head(payload)
        if not isinstance(payload, list):
            wire = self.wire_form
            yield wire.body if wire is not None and self._keeps_body(wire) else payload or ""
            return
        assert self.gaps is not None
        yield self.gaps[0]
        for part, gap in zip(payload, self.gaps[1:], strict=True):
            yield from part._texts()
            if gap and gap[0] not in "\r\n" and not part._is_unchanged():
                yield self.line_end  # a part without a body, whose empty line was the boundary's, may have one now
            yield gap

    def _is_unchanged(self) -> bool:
        wire = self.wire_form
        return wire is not None and list(self.raw_items()) == wire.items and self._keeps_body(wire)

    def _keeps_body(self, wire: WireForm) -> bool:
        payload = self._content()
        return isinstance(payload, list) or payload is wire.payload or payload is wire.body

    def _head(self, payload: Any) -> str:
        items, wire = list(self.raw_items()), self.wire_form
        if wire is not None and items == wire.items:
            whole = self._keeps_body(wire) or ends_with_empty_line(wire.head)
            return wire.head if whole else wire.head + self.line_end
        texts = {} if wire is None else wire.header_texts()
        head = "".join(self._field(item, texts.get(item)) for item in items)
        if payload or (not self.is_block and (wire is None or ends_with_empty_line(wire.head))):
            head += self.line_end
        return head

    def _field(self, item: Item, wire: deque[str] | None) -> str:
        if wire:
            text = wire.popleft()
            return text if text.endswith(("\r", "\n")) else text + self.line_end
        return _folded(*item, self.line_end)
