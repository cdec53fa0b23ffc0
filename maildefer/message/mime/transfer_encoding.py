"""Encodes a body in its transfer encoding, as it stands below the headers of a part."""

from __future__ import annotations

import base64
import quopri
import warnings

from maildefer.message.mime.content_headers import ContentEncoding
from maildefer.message.mime.mail import is_text

_KEPT = ("quoted-printable", "base64")
_LONGEST_LINE = 998  # RFC 5322, section 2.1.1

Encoded = tuple[str, str | None, dict[str, str]]


def encode_body(
    body: str | bytes | None, ctype: str, params: dict[str, str], content_encoding: ContentEncoding
) -> Encoded:
    """Payload text, transfer encoding (None for plain ASCII that declared none) and parameters of the type."""
    declared = content_encoding["Content-Transfer-Encoding"][0]
    kept = declared if declared in _KEPT else None
    if body is None:
        body = "" if is_text(ctype) else b""
    if not is_text(ctype):
        data = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else body
        # RFC 2046, section 5: not encoded.
        if ctype.startswith(("multipart/", "message/")) and _is_plain(data):
            return data.decode("ascii"), None, params
        return _transferred(data, kept or "base64"), kept or "base64", params
    if isinstance(body, bytes):
        data = body
        try:
            body = data.decode("utf-8")
        except UnicodeDecodeError:  # a text file in another charset: its bytes as they are
            return _transferred(data, "base64"), "base64", params
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    data, charset = _charset_bytes(body, params.get("charset"))
    params = params | {"charset": charset}
    if kept is None and _is_plain(data):
        return data.decode("ascii"), "7bit" if declared else None, params
    if kept == "quoted-printable" and b"\0" in data:
        kept = "base64"
    encoding = kept or _shorter(data)
    return _transferred(data, encoding), encoding, params


def _charset_bytes(text: str, declared: str | None) -> tuple[bytes, str]:
    if declared:
        try:
            return text.encode(declared), declared
        except (LookupError, ValueError):  # unknown, or the text does not fit
            warnings.warn(
                f"text does not fit the charset {declared!r} that it declares: it is written as UTF-8",
                UnicodeWarning,
                stacklevel=5,
            )
    if text.isascii():
        return text.encode("ascii"), "us-ascii"
    return text.encode("utf-8", "replace"), "utf-8"


def _is_plain(data: bytes) -> bool:
    return (
        data.isascii()
        and b"\0" not in data
        and b"\x1b" not in data  # ISO-2022 is seven bits, but not ASCII
        and max(map(len, data.split(b"\n")), default=0) <= _LONGEST_LINE
    )


def _shorter(data: bytes) -> str:
    """The encoding that stays more legible: quoted-printable for text that is mostly ASCII."""
    special = sum(byte > 126 for byte in data[:4096])
    return "base64" if b"\0" in data or special * 6 > min(len(data), 4096) else "quoted-printable"


def _transferred(data: bytes, encoding: str) -> str:
    encoded = base64.encodebytes(data) if encoding == "base64" else quopri.encodestring(data)
    return encoded.decode("ascii")
