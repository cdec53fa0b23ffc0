"""Reads a header field `Authentication-Results` (RFC 8601, section 2.2): which server says what about a message.

Each byte is looked at once, whatever strangers write. Comments and quoted strings are what they are, so that nothing in
them is taken for a result. A field that is not in order is not read at all; of one that is, a result that is not in
order, or that has a property twice, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

_LONGEST: Final = 64 << 10
QUOTED: Final = r'"(?:[^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TOKEN: Final = re.compile(rf'[ \t\r\n]++|{QUOTED}|[;=(]|[^\s";=()\\]++', re.DOTALL).match
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_COMMENT_SIGN: Final = re.compile(r"[()\\]").search
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_METHOD: Final = re.compile(r"([a-z0-9-]+)(?:/0*1)?").fullmatch  # of version 1
_RESULT: Final = re.compile(r"[a-z][a-z0-9-]*").fullmatch
_PROPERTY: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)?").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthenticationResult:
    """`dkim=pass (2048 bits) reason="ok" header.d=osb.example`: `method`, `result`, `reason`, and its `properties`."""

    method: str
    result: str
    properties: Mapping[str, str]
    """The values as they stand there, without quotes; the names in lower case: `header.d`, `smtp.mailfrom`."""
    reason: str = ""


class ResultsField(NamedTuple):
    """One field: the server's name in lower case (its authserv-id), and its results."""

    server: str
    results: tuple[AuthenticationResult, ...]


class _Word(NamedTuple):
    text: str
    is_bare: bool  # nothing of it was in quotes


_Segment = list[list[_Word]]
"""The words between two semicolons, divided at the equal signs."""


def read_field(text: str) -> ResultsField | None:
    """The content of a field's value, folds included; None if it is not in order, or of a version other than 1."""
    segments = _segments(text)
    if segments is None:
        return None
    (head, *more), *rest = segments
    if more or not 1 <= len(head) <= 2 or (len(head) == 2 and head[1].text.lstrip("0") != "1"):
        return None
    found = [result for segment in rest if (result := _result(segment)) is not None]
    return ResultsField(head[0].text.lower(), tuple(found))


def comment_end(text: str, at: int) -> int:
    """Where a comment ends whose text begins at `at`, with the comments in it; -1 if it does not end."""
    depth = 1
    while depth:
        sign = _COMMENT_SIGN(text, at)
        if sign is None:
            return -1
        at = sign.end() + (sign[0] == "\\")
        depth += {"(": 1, ")": -1}.get(sign[0], 0)
    return at


def _segments(text: str) -> list[_Segment] | None:
    if len(text) > _LONGEST or _CONTROL(text):
        return None
    segments: list[_Segment] = [[[]]]
    at, is_glued = 0, False
    while at < len(text):
        token = _TOKEN(text, at)
        if token is None:  # a quoted string or a comment that does not end, or a backslash outside of them
            return None
        piece, at = token[0], token.end()
        if piece[0] in " \t\r\n(":
            if piece == "(" and (at := comment_end(text, at)) < 0:
                return None
            is_glued = False
        elif piece == ";" or piece == "=":
            (segments.append([[]]) if piece == ";" else segments[-1].append([]))
            is_glued = False
        else:
            words, quoted = segments[-1][-1], piece[0] == '"'
            word = _Word(_ESCAPE.sub(r"\1", piece[1:-1]) if quoted else piece, not quoted)
            if is_glued:
                before = words.pop()
                word = _Word(before.text + word.text, before.is_bare and word.is_bare)
            words.append(word)
            is_glued = True
    return segments


def _result(segment: _Segment) -> AuthenticationResult | None:
    """`method = result reason = value ptype.property = value`: behind each equal sign a value, then the next name."""
    first, *groups = segment
    method = _name(first)
    read = _METHOD(method)
    if read is None or not groups or any(not group for group in groups) or len(groups[-1]) != 1:
        return None
    result = groups[0][0].text.lower()
    if _RESULT(result) is None:
        return None
    values: dict[str, str] = {}
    for before, group in pairwise(groups):
        name = _name(before[1:])
        if _PROPERTY(name) is None or name in values:
            return None
        values[name] = group[0].text
    reason = values.pop("reason", "")
    return AuthenticationResult(method=read[1], result=result, properties=values, reason=reason)


def _name(words: list[_Word]) -> str:
    """A name, with spaces and comments around its dot or slash removed; empty if any of it was in quotes."""
    return "".join(word.text for word in words).lower() if all(word.is_bare for word in words) else ""
