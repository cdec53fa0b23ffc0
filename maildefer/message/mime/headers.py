"""Decodes and encodes header values (RFC 2047, RFC 2231)."""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Iterator
from email.header import Header
from email.utils import getaddresses, quote
from typing import Any

from maildefer.errors import EncodingError
from maildefer.message.mime.charsets import attempt_decoding, lenient

DEFAULT_ENCODING = "utf-8"  # for text beyond ASCII
ADDRESS_HEADERS = frozenset({"From", "To", "Delivered-To", "Cc", "Bcc"})

_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?")  # the beginning of an encoded word
# The folds of mail, and other characters that `email` takes for line ends when it writes.
_FOLD = re.compile(r"\r?\n[ \t]*|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LONGEST_LINE = 900  # of the 998 bytes that RFC 5322 allows


def VALUE_IS_EMAIL_ADDRESS(value: str) -> bool:
    """Whether the value holds an address, of which only the name may be encoded."""
    return "@" in value


def normalize_header(name: str) -> str:
    """Each word capitalised: `mime-version` → `Mime-Version`."""
    return "-".join(word.capitalize() for word in name.strip().split("-"))


def header_from_mime_encoding(header: Any) -> Any:
    """The text of a header value: None stays None, a list becomes a list of texts."""
    if header is None:
        return None
    if isinstance(header, list):
        return [properly_decode_header(str(one)) for one in header]
    return str(header) if isinstance(header, Header) else properly_decode_header(header)


def properly_decode_header(header: str) -> str:
    """`header` without folds and encoded words. Takes any text; bytes of no charset get replacement characters.

    Neighbouring words of one charset and coding are joined as bytes first, since mailers split characters between them.
    """
    text = _FOLD.sub(" ", _unescaped(header))
    result: list[str] = []
    kind: tuple[str, str] | None = None  # charset and coding of the words before
    pieces: list[bytes] = []
    end = 0
    for word, content, word_end in _words(text):
        between = text[end : word.start()]
        adjacent = kind is not None and not between.strip()
        this = word[1].partition("*")[0].lower(), word[2].upper()
        if kind is not None and not (adjacent and this == kind):
            result.append(lenient(kind[0], b"".join(pieces)))
            pieces.clear()
        if not adjacent:
            result.append(between)
        kind, end = this, word_end
        pieces.append(_word_bytes(word[2], content))
    if kind is not None:
        result.append(lenient(kind[0], b"".join(pieces)))
    result.append(text[end:])
    return "".join(result)


def _words(text: str) -> Iterator[tuple[re.Match[str], str, int]]:
    """The beginning of each encoded word, its content, and where it ends; no place is looked at twice."""
    at = 0
    while (word := _WORD.search(text, at)) and (end := text.find("?=", word.end())) >= 0:
        at = end + len("?=")
        yield word, text[word.end() : end], at


def apply_charset_to_header(charset: str, encoding: str, data: str | bytes) -> str:
    """The text of one encoded word's content. Raises `EncodingError` for a coding other than B and Q."""
    if encoding.upper() not in ("B", "Q"):
        raise EncodingError(f"{encoding!r} is no coding of RFC 2047: it has B and Q")
    text = data.decode("ascii", "replace") if isinstance(data, bytes) else data
    return attempt_decoding(charset, _word_bytes(encoding, text))


def _word_bytes(coding: str, text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    if coding in "Qq":
        return binascii.a2b_qp(raw, header=True)
    clean = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
    if len(clean) % 4 == 1:  # a lone character holds no byte
        clean = clean[:-1]
    return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


def _unescaped(text: str) -> str:
    """The text with raw bytes beyond ASCII, which the parser keeps as surrogates, decoded."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return lenient("utf-8", text.encode("utf-8", "surrogateescape"))


def header_to_mime_encoding(value: Any, not_email: bool = False) -> str:
    """The wire form: ASCII as it is, else encoded words in UTF-8; a list is joined by `"; "`; falsy is empty.

    Unless `not_email`, in a value with addresses only their display names are encoded. No value can begin another
    header: line ends become spaces.
    """
    if not value:
        return ""
    if isinstance(value, (list, tuple)):
        value = "; ".join(str(one) for one in value)
    text = one_line(value)
    if text.isascii() and text.isprintable():
        return text if len(text) <= _LONGEST_LINE else Header(text, "us-ascii", maxlinelen=76).encode()
    if not not_email and VALUE_IS_EMAIL_ADDRESS(text):
        return _encoded_addresses(text)
    return _encoded(text)


def properly_encode_header(value: str, encoder: Any = None, not_email: bool = False) -> str:
    """As `header_to_mime_encoding`; encoded words are made by `encoder`, an `email.charset.Charset`, if given.

    ASCII stays as it is; of an address only the display name is encoded, unless `not_email`.
    """
    text = one_line(value)
    if encoder is None or text.isascii():
        return header_to_mime_encoding(text, not_email)
    if not not_email and VALUE_IS_EMAIL_ADDRESS(text):
        return _encoded_addresses(text, encoder.header_encode)
    return str(encoder.header_encode(text))


def canonical_header(name: str, raw: str) -> str:
    """The wire form of a header that may be on the wire already, its encoded words made UTF-8 ones.

    Addresses are taken apart before they are decoded: a comma in an encoded name separates nothing.
    """
    if "=?" not in raw:
        return header_to_mime_encoding(raw, not_email=name not in ADDRESS_HEADERS)
    if name in ADDRESS_HEADERS and "@" in raw and (encoded := _encoded_addresses(one_line(raw))):
        return encoded
    text = properly_decode_header(raw)
    # An encoded word in decoded text was meant literally.
    return _encoded(text) if "=?" in text else header_to_mime_encoding(text, not_email=True)


def one_line(value: Any) -> str:
    """`value` as text of one line, raw bytes decoded, encoded words left alone."""
    return _FOLD.sub(" ", _unescaped(str(value))).strip()


def _encoded_addresses(text: str, encode: Callable[[str], str] | None = None) -> str:
    found = addresses_in(text)
    return ", ".join(
        _encoded_address(name, address, encode or _encoded) for name, address in found if address
    )


def addresses_in(text: str) -> list[tuple[str, str]]:
    """Names and addresses of a header's value, as `email` finds them; none if comments are nested too deeply."""
    try:
        return getaddresses([text])
    except RecursionError:
        return []


def _encoded_address(name: str, address: str, encode: Callable[[str], str]) -> str:
    # An address beyond ASCII stays as it is (RFC 6532): an encoded word is not allowed in one (RFC 2047, section 5).
    address = address.encode("utf-8", "replace").decode("utf-8")
    name = properly_decode_header(name)
    if not name:
        return address
    if name.isascii() and name.isprintable() and "=?" not in name:
        return f'"{quote(name)}" <{address}>'
    return f'"{encode(name)}" <{address}>'


def _encoded(text: str) -> str:
    return Header(text.encode("utf-8", "replace").decode("utf-8"), DEFAULT_ENCODING, maxlinelen=76).encode()
