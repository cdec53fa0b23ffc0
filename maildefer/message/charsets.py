"""Text out of bytes whose charset is told wrongly, or not at all."""

from __future__ import annotations

import importlib
import re
from typing import Any

from maildefer.message.errors import EncodingError

# No text has these, in any charset that mail uses (escape belongs to ISO-2022-JP, and to no guess of ours).
_BINARY = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]").search
# Four letters beyond ASCII in a row, or the escapes of ISO-2022: no western language has them.
_DENSE = re.compile(rb"[\x80-\xff]{4}|\x1b[$(]").search


def attempt_decoding(charset: str | None, data: bytes | str) -> str:
    """`data` by its charset; by a guess where the charset is unknown or wrong; text comes back as it is.

    Raises `EncodingError` if no guess fits.
    """
    if isinstance(data, str):
        return data
    try:
        return data.decode(charset or "ascii")
    except (LookupError, ValueError):  # unknown, not a text codec, or wrong (a charset's name may hold a NUL)
        return guess_encoding_and_decode(charset or "ascii", data)


def guess_encoding_and_decode(original: str | None, data: bytes | str, errors: str = "strict") -> str:
    """`data` in the charset that it seems to have: UTF-8, CP1252 or another.

    Words with a stray letter beyond ASCII are read as CP1252, since any detector is at a loss with a name or a subject
    line. Of other texts, charset-normalizer is asked if it is installed.

    With `errors` other than strict, what fits nothing is decoded as `original`, or as UTF-8, with that error handler;
    with strict it raises `EncodingError`.
    """
    if isinstance(data, str):
        return data
    for charset in ("utf-8", None, "cp1252", "latin-1"):
        if charset is None and _DENSE(data) is None:
            continue
        text = _detected(data) if charset is None else _fitting(data, charset)
        if text is not None:
            return text
    if errors == "strict":
        raise EncodingError(
            f"{len(data)} bytes said to be {original!r} are no text in any known charset: "
            f"handle them as bytes; they begin with {data[:20]!r}"
        )
    try:
        return data.decode(original or "utf-8", errors)
    except (LookupError, ValueError):
        return data.decode("utf-8", errors)


def lenient(charset: str | None, data: bytes | str) -> str:
    """As `attempt_decoding`, but what fits nothing gets replacement characters: for readers that must go on."""
    try:
        return attempt_decoding(charset, data)
    except EncodingError:
        return data if isinstance(data, str) else data.decode("utf-8", "replace")


def _fitting(data: bytes, charset: str) -> str | None:
    try:
        text = data.decode(charset)
    except UnicodeDecodeError:
        return None
    return text if charset == "utf-8" or not _BINARY(text) else None


def _detected(data: bytes) -> str | None:
    """What charset-normalizer makes of it; it is an optional guest, and heavy, so it is looked for only here."""
    try:
        normalizer: Any = importlib.import_module("charset_normalizer")
    except ImportError:
        return None
    best = normalizer.from_bytes(data[:65536]).best()
    return None if best is None else _fitting(data, best.encoding)
