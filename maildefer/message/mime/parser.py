"""Reads any bytes as a `MailBase`, and records the text of each part."""

from __future__ import annotations

import email.parser
import re
from email.feedparser import BufferedSubFile, FeedParser  # type: ignore[attr-defined]  # the one it reads from
from email.message import Message
from typing import IO, TYPE_CHECKING, Any, Final

from maildefer.errors import EncodingError
from maildefer.message.mime.canonical import STATUS
from maildefer.message.mime.mail import MailBase
from maildefer.message.mime.mime_part import Part
from maildefer.message.mime.wire_form import WireForm, boundary_of, is_wire, line_end_of, without_line_end

_DEEPEST: Final = 60
_TOO_DEEP: Final = f"the message has parts nested more than {_DEEPEST} deep: handle its bytes"
_CHUNK: Final = 8192
# An empty line; `email` takes a lone CR for a line's end, too.
_EMPTY_LINE: Final = r"(?:\A|\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)"
_END_OF_HEADERS_TEXT: Final = re.compile(_EMPTY_LINE)
_END_OF_HEADERS: Final = re.compile(_EMPTY_LINE.encode())


def from_string(data: str | bytes) -> MailBase:
    """Read a message. Takes any bytes; a message that `email` cannot read has headers and one body."""
    raw = data if isinstance(data, bytes) else _wire(data)
    text = raw.decode("ascii", "surrogateescape")
    try:
        return _read(_parsed(text), text)
    except (EncodingError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Too deep nesting, or bugs of the parser with hostile parameters: the headers alone can always be read.
        return _read(_parsed(text, only_headers=True), text)


def headers_from_string(data: str | bytes) -> MailBase:
    """The headers that `from_string` would find, for reading; the body below them is not parsed."""
    if isinstance(data, str):
        found = _END_OF_HEADERS_TEXT.search(data)
        raw = _wire(data[: found.end()] if found else data)
    else:
        end = _END_OF_HEADERS.search(data)
        raw = data[: end.end()] if end else data
    return MailBase(email.parser.BytesHeaderParser().parsebytes(raw))


def from_file(file: IO[Any]) -> MailBase:
    """Read a message from a text or binary file."""
    return from_string(file.read())


def from_message(message: Message, parent: MailBase | None = None) -> MailBase:
    """A `MailBase` over an `email` message and all its parts.

    It is written as it was read, as far as `email` has kept the text. Raises `EncodingError` for parts that are nested
    over 60 deep, which no mailer writes.
    """
    return _tree(message, parent, 0, line_end_of(message))


if TYPE_CHECKING:
    _FeedParser = FeedParser[Part]
else:
    _FeedParser = FeedParser


class _Input(BufferedSubFile):  # type: ignore[misc]  # no types are told for it
    """Input that counts how far the text was read."""

    at = 0

    def readline(self) -> Any:
        line = super().readline()
        if isinstance(line, str):  # and not the mark for missing input
            self.at += len(line)
        return line

    def unreadline(self, line: str) -> None:
        self.at -= len(line)
        super().unreadline(line)


class _Parser(_FeedParser):
    """Records where in the text each part lies, and stops at a depth that no mailer writes.

    Each line of a part costs as much as the part is deep.
    """

    _msgstack: list[Part]  # the message that is read, and those around it
    _cur: Part

    def __init__(self) -> None:
        super().__init__(Part)
        self._input = _Input()

    def _new_message(self) -> None:
        if len(self._msgstack) > _DEEPEST:
            raise EncodingError(_TOO_DEEP)
        super()._new_message()  # type: ignore[misc]  # a private method of email
        self._cur.start = self._input.at

    def _parse_headers(self, lines: list[str]) -> None:
        super()._parse_headers(lines)  # type: ignore[misc]
        self._cur.body_at = self._input.at
        self._cur.known_type = self._cur.get_content_type()

    def _pop_message(self) -> Part:
        message: Part = super()._pop_message()  # type: ignore[misc]
        message.end = self._input.at
        message.known_type = None
        return message


def _parsed(text: str, only_headers: bool = False) -> Part:
    parser = _Parser()
    if only_headers:
        parser._set_headersonly()  # type: ignore[attr-defined]
    for start in range(0, len(text), _CHUNK):
        parser.feed(text[start : start + _CHUNK])
    return parser.close()


def _wire(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _read(message: Part, text: str) -> MailBase:
    first = text.find("\n")
    return _Spans(text, "\r\n" if first > 0 and text[first - 1] == "\r" else "\n").tree(
        message, None, 0, len(text)
    )


class _Spans:
    """Makes the tree of a message from its text."""

    def __init__(self, text: str, line_end: str) -> None:
        self._text = text
        self._line_end = line_end

    def tree(self, message: Part, parent: MailBase | None, depth: int, limit: int) -> MailBase:
        """The tree below a message. `limit`: the end of its text, since a line end before a boundary belongs to it."""
        if depth > _DEEPEST:
            raise EncodingError(_TOO_DEEP)
        text, end = self._text, min(message.end, limit)
        body_at = min(message.body_at, end)
        mail = MailBase(message, parent)
        payload: Any = vars(message).get("_payload")
        gaps: list[str] = []
        body = ""
        if isinstance(payload, list):
            in_multipart, at = message.get_content_maintype() == "multipart", body_at
            for part in _kept(message, payload):
                start, part_end = min(part.start, end), min(part.end, end)
                if in_multipart:
                    part_end = max(start, without_line_end(text, part_end))
                gaps.append(text[at:start])
                mail.parts.append(self.tree(part, mail, depth + 1, part_end))
                at = part_end
            gaps.append(text[at:end])
        if not mail.parts:
            gaps, body = [], text[body_at:end]
        is_known = bool(gaps) or body == (payload or "")
        if is_known and not gaps:
            body = payload or ""  # one text in memory, not two
        items = list(message.raw_items())
        mail.wire_form = WireForm(
            items=items,
            head=text[message.start : body_at],
            payload=payload,
            body=body,
            parts=tuple(mail.parts),
            gaps=gaps,
            boundary=boundary_of(items) if gaps else None,
            line_end=self._line_end,
            can_change=is_known,
        )
        return mail


def _kept(message: Message, payload: list[Any]) -> list[Any]:
    """The parts with content: `email` makes an empty part of an empty line in a delivery report."""
    if message.get_content_type() != STATUS:
        return payload
    return [part for part in payload if part.keys() or str(part.get_payload()).strip()]


def _tree(message: Message, parent: MailBase | None, depth: int, end: str) -> MailBase:
    """The tree of a message that another program part has read or made by `email`."""
    if depth > _DEEPEST:
        raise EncodingError(_TOO_DEEP)
    mail = MailBase(message, parent)
    payload: Any = vars(message).get("_payload")
    if isinstance(payload, list):
        kept = [part for part in _kept(message, payload) if isinstance(part, Message)]
        mail.parts = [_tree(part, mail, depth + 1, end) for part in kept]
    elif payload is not None and not is_wire(payload):
        return mail  # text of a program, in no charset yet
    items = [(name, value) for name, value in message.raw_items() if is_wire(value, is_header=True)]
    boundary = boundary_of(items) if mail.parts else None
    is_multipart = message.get_content_maintype() == "multipart"
    if is_multipart and mail.parts and not boundary:
        return mail
    in_report = parent is not None and parent.mime_part.get_content_type() == STATUS
    head = "".join(f"{name}: {value}{end}" for name, value in items)
    mail.wire_form = WireForm(
        items=items,
        head=head if in_report and not (payload and items) else head + end,
        payload=payload,
        body="" if isinstance(payload, list) else payload or "",
        parts=tuple(mail.parts),
        gaps=_gaps(message, len(mail.parts), boundary, end) if mail.parts else (),
        boundary=boundary,
        line_end=end,
    )
    return mail


def _gaps(message: Message, number: int, boundary: str | None, end: str) -> list[str]:
    """The text around the parts, as far as `email` has kept it."""
    if boundary is None:
        blank = end if message.get_content_type() == STATUS else ""
        return ["", *[blank] * (number - 1), blank * (len(message.get_payload()) - number)]
    before = "" if message.preamble is None else message.preamble + end
    behind = "" if message.epilogue is None else end + message.epilogue
    between = f"{end}--{boundary}{end}"
    return [f"{before}--{boundary}{end}", *[between] * (number - 1), f"{end}--{boundary}--{behind}"]
