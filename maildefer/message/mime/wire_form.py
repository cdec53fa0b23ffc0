"""The text from which a message was read, so that unchanged parts are written byte for byte.

A message is the text of its headers, then its body, or its parts and the text around them (`gaps`: up to the first
part, between two parts, and behind the last). Joined again, these are the text that was read.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final

from maildefer.message.mime.parameters import parsed

Item = tuple[str, str]  # a header's name and value, as `email` keeps them

_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")
_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_BREAK: Final = re.compile(r"\n(?![ \t])|\r(?![ \t\n])")
_EMPTY_AT_THE_END: Final = re.compile(r"(?:\A|\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)\Z")


@dataclass(slots=True, kw_only=True)
class WireForm:
    """The text of one message or part. Only the records of headers that maildefer added change."""

    items: list[Item]
    head: str
    """The text of the headers and of the empty line below them."""
    payload: Any
    """The body as `email` has read it."""
    body: str = ""
    """The text of the body, where there are no parts."""
    parts: Sequence[object] = ()
    gaps: Sequence[str] = ()
    boundary: str | None = None
    line_end: str
    can_change: bool = True
    """Whether the bounds of the body are known, so that a change can leave the rest as it was."""
    type_written: str | None = None
    """The Content-Type that was written back when the message was written."""
    filled_in: Sequence[str] = ()
    """Addresses of the envelope that stand in for absent headers; they are no part of the message."""

    def items_now(self, now: list[Item]) -> list[Item]:
        """The headers that a message has now, with its own Content-Type in its place where that was written back."""
        if self.filled_in:
            now = [item for item in now if not any(item[1] is filled for filled in self.filled_in)]
        rest = [item for item in now if item[1] is not self.type_written]
        if len(rest) == len(now):
            return now
        own = [item for item in self.items if _is_type(item)]
        if rest == [item for item in self.items if not _is_type(item)]:
            return self.items
        if not own:
            return rest
        before = set(self.items[: self.items.index(own[0])])
        place = max((number + 1 for number, item in enumerate(rest) if item in before), default=0)
        return [*rest[:place], *own, *rest[place:]]

    def header_texts(self) -> dict[Item, deque[str]]:
        """The text of each header, line end and folds included."""
        texts: dict[Item, deque[str]] = defaultdict(deque)
        fields = deque(fields_of(self.head))
        for name, value in self.items:
            junk = ""
            while fields and not fields[0].startswith(f"{name}:"):
                junk += fields.popleft()  # no header to `email`: it goes with the next
            if fields:
                texts[name, value].append(junk + fields.popleft())
        return texts


def ends_with_empty_line(head: str) -> bool:
    """Whether the headers end with an empty line; in broken mail they may not."""
    return _EMPTY_AT_THE_END.search(head, max(0, len(head) - 4)) is not None


def fields_of(head: str) -> list[str]:
    """The fields of the header section, with their folded lines."""
    fields: list[list[str]] = []
    for found in _LINE.finditer(head):
        line = found[0]
        if line[:1] in (" ", "\t") and fields:
            fields[-1].append(line)
        elif line:
            fields.append([line])
    return ["".join(lines) for lines in fields]


def _is_type(item: Item) -> bool:
    return item[0].lower() == "content-type"


def is_wire(text: object, *, is_header: bool = False) -> bool:
    """Whether a text can have been read: ASCII, and surrogates for other bytes; for a header, no second one in it."""
    if not isinstance(text, str) or (is_header and _BREAK.search(text)):
        return False
    try:
        text.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def boundary_of(items: Iterable[Item]) -> str | None:
    """The boundary in the headers of a multipart, as `email` reads it."""
    own = next((value for name, value in items if name.lower() == "content-type"), "")
    own_boundary = parsed(own)[1].get("boundary") if own else None
    return None if own_boundary is None else own_boundary.rstrip()


def line_end_of(message: Message) -> str:
    """The line end of a message of `email`: the first one in it."""
    for part in message.walk():
        for _, value in part.raw_items():
            if found := _LINE_END.search(str(value)):
                return found[0]
        for text in (part.preamble, vars(part).get("_payload")):
            if isinstance(text, str) and (found := _LINE_END.search(text)):
                return found[0]
    return "\n"


def without_line_end(text: str, end: int) -> int:
    """The end of `text[:end]` without its last line end."""
    if text.endswith("\r\n", 0, end):
        return end - 2
    return end - 1 if text.endswith(("\n", "\r"), 0, end) else end
