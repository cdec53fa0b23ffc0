"""A message or a part of one, decoded: headers and text as `str`, other bodies as `bytes`.

The data is in `mime_part`, an object of the `email` package; a `MailBase` gives access to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from typing import Any, TypeGuard

from maildefer.errors import EncodingError
from maildefer.message.mime.charsets import lenient
from maildefer.message.mime.content_headers import ContentEncoding
from maildefer.message.mime.headers import header_from_mime_encoding, normalize_header, one_line
from maildefer.message.mime.wire_form import WireForm

Headers = Mapping[str, str] | Iterable[tuple[str, str]]

_TYPE = re.compile(r"[!#$%&'*+.^_`{|}~0-9a-z-]+/[!#$%&'*+.^_`{|}~0-9a-z-]+")  # RFC 2045, section 5.1
_HEADER_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, section 2.2


class MailBase:
    """Headers by name in any case, `body`, `parts`, `content_encoding`; not for two threads at a time.

    Made from an `email` message, from headers, or empty. Setting a header replaces all of that name and puts it last.
    """

    def __init__(
        self, mime_part_or_headers: Message | Headers | None = None, parent: MailBase | None = None
    ) -> None:
        self.parent = parent
        self.parts: list[MailBase] = []
        self.content_encoding = ContentEncoding(self)
        self.wire_form: WireForm | None = None
        """The text from which it was read; None for a message that was made."""
        self.body_was_set = False
        self._body: Any = None
        self._body_is_known = False
        if isinstance(mime_part_or_headers, Message):
            self.mime_part = mime_part_or_headers
            return
        self.mime_part = Message()
        self._body_is_known = True
        given = mime_part_or_headers or ()
        for name, value in given.items() if isinstance(given, Mapping) else given:
            self.append_header(name, value)

    @property
    def body(self) -> Any:
        """Text of text types (and of no type), bytes of others, None if there is none. Can be set."""
        if not self._body_is_known:
            self._body = decoded_body(self)
            self._body_is_known = True
        return self._body

    @body.setter
    def body(self, value: str | bytes | None) -> None:
        self._body = value
        self._body_is_known = self.body_was_set = True

    def raw(self, name: str) -> str | None:
        """The first header of that name as it was read, with its encoded words."""
        for found, value in self.mime_part.raw_items():
            if found.lower() == name.lower():
                return str(value)
        return None

    def __getitem__(self, name: str) -> str | None:
        text: str | None = header_from_mime_encoding(self.raw(name))
        return text

    def get_all(self, name: str) -> list[str]:
        """The texts of all headers of that name."""
        return [text for found, text in self.items() if found == normalize_header(name)]

    def __setitem__(self, name: str, value: Any) -> None:
        del self[name]
        if value is not None:
            self.append_header(name, value)

    def append_header(self, name: str, value: Any) -> None:
        """Add a header and replace none. Raises `EncodingError` for a name that no header can have."""
        if not _HEADER_NAME.fullmatch(name):
            raise EncodingError(
                f"{name[:80]!r} cannot be a header's name: it has printable ASCII without colons"
            )
        self.mime_part[normalize_header(name)] = one_line(value)

    def __delitem__(self, name: str) -> None:
        del self.mime_part[name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.raw(name) is not None

    def __len__(self) -> int:
        return len(self.mime_part)

    def __bool__(self) -> bool:
        return True  # not the number of headers

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> list[str]:
        """The names of all headers, repeated ones too, each word capitalised."""
        return [normalize_header(name) for name, _ in self.mime_part.raw_items()]

    def items(self) -> list[tuple[str, str]]:
        """All headers: name, text."""
        return [
            (normalize_header(name), header_from_mime_encoding(str(value)))
            for name, value in self.mime_part.raw_items()
        ]

    def attach_text(self, data: str | bytes, ctype: str) -> MailBase:
        """Add a part of text. Raises `EncodingError` unless `ctype` is in lower case."""
        part = self._attached(data, ctype)
        self.parts.append(part)
        return part

    def attach_file(
        self, filename: str | None, data: str | bytes, ctype: str, disposition: str | None
    ) -> MailBase:
        """Add a part with a file's name and disposition. Raises `EncodingError` unless `ctype` is in lower case."""
        part = self._attached(data, ctype)
        if filename:
            part.content_encoding["Content-Type"] = (ctype, {"name": filename})
        if disposition:
            part.content_encoding["Content-Disposition"] = (
                disposition,
                {"filename": filename} if filename else {},
            )
        self.parts.append(part)
        return part

    def _attached(self, data: str | bytes, ctype: str) -> MailBase:
        if ctype != ctype.lower():
            raise EncodingError(f"the type {ctype!r} must be given in lower case: {ctype.lower()!r}")
        part = MailBase(parent=self)
        part.content_encoding["Content-Type"] = (ctype, {})
        part.body = data
        return part

    def walk(self) -> Iterator[MailBase]:
        """All parts below this one, depth first."""
        for part in self.parts:
            yield part
            yield from part.walk()


def is_type(ctype: str | None) -> TypeGuard[str]:
    """Whether this is a valid type; broken mailers write others (`text`, `(null)/plain`)."""
    return ctype is not None and _TYPE.fullmatch(ctype) is not None


def is_text(ctype: str | None) -> bool:
    """Whether a body of this type, or of none, is read as `str`."""
    return not is_type(ctype) or ctype.startswith("text/")


def decoded_body(mail: MailBase) -> Any:
    """The body that was read, decoded."""
    message = mail.mime_part
    # Not by `get_payload()`, which decodes raw bytes by the declared charset and loses those that do not fit.
    payload: Any = vars(message).get("_payload")
    if payload is None or message.is_multipart():
        return None
    ctype, params = mail.content_encoding["Content-Type"]
    text = is_text(ctype) or str(ctype).startswith("multipart/")  # without any boundary
    if isinstance(payload, str) and not payload.isascii() and not _has_raw_bytes(payload):
        return payload if text else payload.encode()  # set by a program, not read from a wire
    data = decoded_bytes(mail)
    return lenient(params.get("charset"), data) if text else data


def decoded_bytes(mail: MailBase) -> bytes:
    """The body that was read, without its transfer encoding."""
    try:
        data: Any = mail.mime_part.get_payload(decode=True)
    except (ValueError, LookupError):  # raised by the decoders for broken transfer encodings
        data = str(vars(mail.mime_part).get("_payload")).encode("utf-8", "surrogateescape")
    return data or b""


def _has_raw_bytes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
