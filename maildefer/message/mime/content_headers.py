"""The headers that declare the coding of a part, as pairs of value and parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Final, Protocol

from maildefer.errors import EncodingError
from maildefer.message.mime.headers import (
    header_to_mime_encoding,
    normalize_header,
    one_line,
    properly_decode_header,
)
from maildefer.message.mime.parameters import parse_parameter_header

CONTENT_ENCODING_KEYS: Final = {
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Mime-Version",
}
CONTENT_ENCODING_REMOVED_PARAMS: Final = ["boundary"]  # made anew whenever a message is written

Coding = tuple[str | None, dict[str, str]]


class _HasMimePart(Protocol):
    mime_part: Message


class ContentEncoding:
    """`content_encoding["Content-Type"]` → `("text/plain", {"charset": "utf-8"})`; `(None, {})` for what is absent.

    Only an assignment changes the part; the pair that is read is a copy. Keys outside `CONTENT_ENCODING_KEYS` and
    values that are no such pair raise `EncodingError`.
    """

    def __init__(self, mail: _HasMimePart) -> None:
        self._mail = mail

    def __getitem__(self, name: str) -> Coding:
        value, params = parse_parameter_header(self._mail.mime_part, _known(name))
        kept = {
            k: _without_nul(properly_decode_header(v))
            for k, v in params.items()
            if k not in CONTENT_ENCODING_REMOVED_PARAMS
        }
        return value, kept

    def __setitem__(self, name: str, coding: Coding) -> None:
        name = _known(name)
        value, params = _pair(name, coding)
        changed = Message()
        if value:
            add_content_header(changed, name, value, params)
        del self._mail.mime_part[name]  # only now, so that a pair that makes no header leaves the old one
        for header in changed.raw_items():
            self._mail.mime_part[header[0]] = header[1]

    def __delitem__(self, name: str) -> None:
        del self._mail.mime_part[_known(name)]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _known(name) in self._mail.mime_part

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, name: str, default: Coding = (None, {})) -> Coding:
        coding = self[name]
        return default if coding[0] is None else coding

    def keys(self) -> list[str]:
        """The coding headers that the part has, in their order."""
        names = [normalize_header(name) for name, _ in self._mail.mime_part.raw_items()]
        return [name for name in dict.fromkeys(names) if name in CONTENT_ENCODING_KEYS]


def add_content_header(message: Message, name: str, value: str, params: dict[str, str]) -> None:
    """Append `name: value; param="…"`, parameters quoted as `email` does, those beyond ASCII by RFC 2231."""
    texts = {key: _without_nul(one_line(text)) for key, text in params.items()}
    texts = dict(sorted(texts.items(), key=lambda one: not one[1].isascii()))  # as `email` reads them again
    message.add_header(
        name,
        header_to_mime_encoding(value, not_email=True),
        **{key: text if text.isascii() else ("utf-8", "", _encodable(text)) for key, text in texts.items()},
    )


def _without_nul(text: str) -> str:
    """The text without NULs, at which a file's name ends for some programs, and which others refuse."""
    return text.replace("\0", "")


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _pair(name: str, coding: object) -> Coding:
    match coding:
        case ((str() | None) as value, (Mapping() | None) as params):
            return value, dict(params or {})
    raise EncodingError(
        f"{name} is set with a pair such as ('text/plain', {{'charset': 'utf-8'}}), not {coding!r}"
    )


def _known(name: str) -> str:
    known = normalize_header(name)
    if known not in CONTENT_ENCODING_KEYS:
        raise EncodingError(
            f"{name!r} is no coding header; these are: {', '.join(sorted(CONTENT_ENCODING_KEYS))}"
        )
    return known
