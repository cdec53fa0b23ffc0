"""Between bytes and `MailBase`: any message in, only canonical ones out.

Canonical: ASCII throughout where it can be (an address beyond ASCII is the exception), headers as UTF-8 encoded words,
text in ASCII or UTF-8 unless it declared a charset that fits, everything else in base64. The same message gives the
same text each time: boundaries are made from the content's hash, not from chance.
"""

from __future__ import annotations

import email.parser
import re
from email.feedparser import FeedParser
from email.message import Message
from typing import IO, Any

from maildefer.digest import blake2b
from maildefer.message.base import MailBase, is_type
from maildefer.message.content import add_content_header
from maildefer.message.errors import EncodingError
from maildefer.message.headers import canonical_header, normalize_header
from maildefer.message.mime import MIMEPart
from maildefer.message.payload import encode_body

_DEEPEST = 60
_TOO_DEEP = f"the message has parts nested more than {_DEEPEST} deep: handle its bytes"
_CHUNK = 8192
STATUS = "message/delivery-status"
# An empty line; `email` takes a lone CR for a line's end, too.
_EMPTY_LINE = r"(?:\A|\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)"
_END_OF_HEADERS_TEXT = re.compile(_EMPTY_LINE)
_END_OF_HEADERS = re.compile(_EMPTY_LINE.encode())


def from_string(data: str | bytes) -> MailBase:
    """Read a message. Takes any bytes; what `email` cannot take apart becomes headers and one body."""
    raw = data if isinstance(data, bytes) else _wire(data)
    try:
        return from_message(_parsed(raw))
    except (EncodingError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Nesting without end, and the parser's bugs on hostile parameters: the headers alone can always be read.
        return from_message(email.parser.BytesHeaderParser().parsebytes(raw))


class _Parser(FeedParser):
    """Stops where no mailer goes: each line of a part costs as much as the part is deep."""

    _msgstack: list[Message]  # the message in hand, and those around it

    def _new_message(self) -> None:
        if len(self._msgstack) > _DEEPEST:
            raise EncodingError(_TOO_DEEP)
        super()._new_message()  # type: ignore[misc]  # email's own, and nobody else's business


def _parsed(raw: bytes) -> Message:
    parser = _Parser()
    text = raw.decode("ascii", "surrogateescape")
    for start in range(0, len(text), _CHUNK):
        parser.feed(text[start : start + _CHUNK])
    return parser.close()


def headers_from_string(data: str | bytes) -> MailBase:
    """The headers that `from_string` would find; what is below them costs nothing."""
    if isinstance(data, str):
        found = _END_OF_HEADERS_TEXT.search(data)
        raw = _wire(data[: found.end()] if found else data)
    else:
        end = _END_OF_HEADERS.search(data)
        raw = data[: end.end()] if end else data
    return from_message(email.parser.BytesHeaderParser().parsebytes(raw))


def _wire(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def from_file(file: IO[Any]) -> MailBase:
    """Read a message from a text or binary file."""
    return from_string(file.read())


def from_message(message: Message, parent: MailBase | None = None) -> MailBase:
    """A `MailBase` over an `email` message and all its parts.

    Raises `EncodingError` when they are nested over 60 deep, which no mailer does and no recursion should follow.
    """
    return _tree(message, parent, 0)


def _tree(message: Message, parent: MailBase | None, depth: int) -> MailBase:
    if depth > _DEEPEST:
        raise EncodingError(_TOO_DEEP)
    mail = MailBase(message, parent)
    if message.is_multipart():
        payload: Any = message.get_payload()
        if message.get_content_type() == STATUS:  # an empty line more is an empty block to `email`
            payload = [part for part in payload if part.keys() or str(part.get_payload()).strip()]
        mail.parts = [_tree(part, mail, depth + 1) for part in payload if isinstance(part, Message)]
    return mail


def to_string(mail: MailBase, envelope_header: bool = False) -> str:
    """The canonical text; with `envelope_header`, below an mbox `From ` line."""
    return to_message(mail).as_string(unixfrom=envelope_header)


def to_file(mail: MailBase, file: IO[Any]) -> None:
    """Write the canonical text to a text or binary file."""
    text = to_string(mail)
    try:
        file.write(text)
    except TypeError:  # a binary file
        file.write(text.encode("utf-8", "surrogateescape"))


def to_message(mail: MailBase) -> MIMEPart:
    """The canonical `email` message. Its type is written back into `mail`, as the last header there.

    Raises `EncodingError` if there are parts and the type can have none; warns with `UnicodeWarning` where text does
    not fit the charset that it declared.
    """
    part = MIMEPart()
    if _is_status_block(mail):  # its fields are no headers of a part, and it has no type
        _copy_headers(mail, part)
        part.set_payload(
            str(mail.body or "").lstrip("\r\n").encode("ascii", "replace").decode()
        )  # stray text between fields
        part.digest = blake2b(part.as_string().encode("utf-8", "replace")).digest()
        return part
    ctype, declared = _type_of(mail)
    params = declared
    if mail.parts:
        children = [to_message(child) for child in mail.parts]
        encoding = None
        part.set_payload([*children])
        part.digest = blake2b(ctype.encode() + b"".join(child.digest for child in children)).digest()
    else:
        body = "" if ctype.startswith("multipart/") else mail.body  # see _type_of
        text, encoding, params = encode_body(body, ctype, declared, mail.content_encoding)
        part.set_payload(text)
        part.digest = blake2b(ctype.encode() + text.encode("utf-8", "surrogateescape")).digest()
    # Back into `mail` goes what was declared; a charset that was only found must not bind the next body.
    mail.content_encoding["Content-Type"] = (ctype, declared)
    _copy_headers(mail, part)
    if mail.parent is None and "Mime-Version" not in part:
        part["Mime-Version"] = "1.0"
    add_content_header(part, "Content-Type", ctype, params)
    if ctype.startswith("multipart/"):
        part.set_param("boundary", f"=_{part.digest.hex()[:32]}")
    if encoding is not None:
        part["Content-Transfer-Encoding"] = encoding
    return part


def _type_of(mail: MailBase) -> tuple[str, dict[str, str]]:
    ctype, params = mail.content_encoding["Content-Type"]
    if not is_type(ctype):
        ctype, params = _default_type(mail), {}
    main = ctype.partition("/")[0]
    if mail.parts and main not in ("multipart", "message"):
        raise EncodingError(
            f"a message of type {ctype} cannot have parts: make it multipart/mixed, or clear its parts"
        )
    if not mail.parts and main == "multipart" and mail.body and mail.body.strip():
        return "text/plain", {}  # said to be multipart, but no boundary was ever found in it
    return ctype, params


def _default_type(mail: MailBase) -> str:
    if not mail.parts:
        return "text/plain"
    default = mail.mime_part.get_default_type()  # differs in a multipart/digest
    return default if default.startswith("message/") else "multipart/mixed"


def _copy_headers(mail: MailBase, part: MIMEPart) -> None:
    for name, value in mail.mime_part.raw_items():
        normal = normalize_header(name)
        if normal == "Content-Disposition":
            coding, params = mail.content_encoding[normal]
            if coding and normal not in part:
                add_content_header(part, normal, coding, params)
        elif normal not in ("Content-Type", "Content-Transfer-Encoding"):
            part[normal] = canonical_header(normal, str(value))


def _is_status_block(mail: MailBase) -> bool:
    """One of the groups of fields in a delivery report (RFC 3464), which `email` gives as parts."""
    parent = mail.parent
    return parent is not None and parent.content_encoding["Content-Type"][0] == STATUS
