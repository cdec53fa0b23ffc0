"""Decodes bytes whose charset is declared wrongly, or not at all."""

from __future__ import annotations

import re

from maildefer.errors import EncodingError
from maildefer.message.mime.charset_detection import detected

# No text has these characters, in any charset that mail uses (escape is used in ISO-2022-JP only).
_BINARY = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]").search
_READ_BYTES = 4096  # up to the last space
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
    """`data` in the charset that it seems to have: UTF-8, a charset of no western language, or CP1252.

    If none fits, and `errors` is not strict, it is decoded as `original`, or as UTF-8, with that error handler; with
    strict, `EncodingError` is raised.
    """
    if isinstance(data, str):
        return data
    guessed = detected(_beginning(data)) if _DENSE(data) else None
    # ISO-2022 has seven bits, and so is UTF-8 as well.
    first = (guessed, "utf-8") if b"\x1b" in data else ("utf-8", guessed)
    for charset in (*first, "cp1252", "latin-1"):
        text = None if charset is None else _fitting(data, charset)
        if text is not None:
            return text
    if errors == "strict":
        raise EncodingError(
            f"{len(data)} bytes declared as {original!r} are no text in any known charset: "
            f"handle them as bytes; they begin with {data[:20].decode('latin-1')!r}"
        )
    try:
        return data.decode(original or "utf-8", errors)
    except (LookupError, ValueError):
        return data.decode("utf-8", errors)


def lenient(charset: str | None, data: bytes | str) -> str:
    """As `attempt_decoding`, with replacement characters where no charset fits."""
    try:
        return attempt_decoding(charset, data)
    except EncodingError:
        return data if isinstance(data, str) else data.decode("utf-8", "replace")


def _beginning(data: bytes) -> bytes:
    """The beginning that is enough to detect the charset, without half a character at its end."""
    return data if len(data) <= _READ_BYTES else data[:_READ_BYTES].rpartition(b" ")[0] or data


def _fitting(data: bytes, charset: str) -> str | None:
    try:
        text = data.decode(charset)
    except UnicodeDecodeError:
        return None
    return text if charset == "utf-8" or not _BINARY(text) else None
