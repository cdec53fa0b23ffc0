"""The set of characters with which a part of a regular expression can begin; too large rather than too small.

Characters are bits of a number: one for each of ASCII, one for all others, one for the end of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from maildefer.matching.literals import REPEATS

_BEYOND: Final = 1 << 128
_END: Final = 1 << 129
_ALL: Final = (1 << 130) - 1
_NEWLINE: Final = 1 << ord("\n")


class FirstSet(NamedTuple):
    """The characters with which a match begins, and the nanoseconds to see that a text does not begin so."""

    characters: int
    work: float

    def or_else(self, other: FirstSet) -> FirstSet:
        return FirstSet(self.characters | other.characters, self.work + other.work)


ANYTHING: Final = FirstSet(_ALL, 0.0)
_NOTHING: Final = FirstSet(0, 0.0)
_TEST: Final = 10.0  # nanoseconds, about


def sequence_entry(items: Iterable[Any], following: FirstSet, flags: int) -> FirstSet:
    """The first set of several items, one after the other, and then of `following`."""
    for item in reversed(list(items)):
        following = entry(item, following, flags)
    return following


def entry(item: Any, following: FirstSet, flags: int) -> FirstSet:
    """The first set of one item, and then of `following`."""
    operation, value = item
    name = str(operation)
    if name in REPEATS:
        inner = sequence_entry(value[2], following, flags)
        return (inner if value[0] else inner.or_else(following))._replace(
            work=inner.work + following.work + _TEST
        )
    match name:
        case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY":
            return FirstSet(_characters(name, tuple(value) if name == "IN" else value, flags), _TEST)
        case "AT":
            return _at(str(value), following)
        case "SUBPATTERN":
            inner = sequence_entry(value[3], following, (flags | value[1]) & ~value[2])
            return inner._replace(work=inner.work + _TEST)
        case "BRANCH":
            inner = _NOTHING
            for alternative in value[1]:
                inner = inner.or_else(sequence_entry(alternative, following, flags))
            return inner._replace(work=inner.work + _TEST * len(value[1]))
        case "ATOMIC_GROUP":
            return sequence_entry(value, following, flags)
        case _:  # look-ahead, look-behind, and conditions on groups
            return ANYTHING


def exclude_each_other(alternatives: Sequence[Any], following: FirstSet, flags: int) -> bool:
    """Whether no text can begin as two of them do."""
    seen = 0
    for alternative in alternatives:
        characters = sequence_entry(alternative, following, flags).characters
        if seen & characters:
            return False
        seen |= characters
    return True


def _at(where: str, following: FirstSet) -> FirstSet:
    if where == "AT_END":
        return FirstSet(_NEWLINE | _END, _TEST)
    if where == "AT_END_STRING":
        return FirstSet(_END, _TEST)
    return FirstSet(following.characters, following.work + _TEST)


@lru_cache(maxsize=1024)  # routes are much alike
def _characters(name: str, value: Any, flags: int) -> int:
    match name:
        case "LITERAL":
            return _in_any_case([value])
        case "NOT_LITERAL":
            return _ALL & ~_END & ~_bits([value])
        case "ANY":
            return _ALL & ~_END & ~(0 if flags & re.DOTALL else _NEWLINE)
    possible, sure, negated = 0, 0, False
    for operation, what in value:
        match str(operation):
            case "NEGATE":
                negated = True
            case "LITERAL":
                possible |= _in_any_case([what])
                sure |= _bits([what])
            case "RANGE":
                possible |= _in_any_case(range(what[0], min(what[1], 128) + 1)) | (
                    _in_any_case([128]) if what[1] >= 128 else 0
                )
                sure |= _bits(range(what[0], min(what[1], 127) + 1))
            case "CATEGORY":
                maybe, surely = _category(str(what))
                possible |= maybe
                sure |= surely
            case _:
                possible, sure = _ALL, 0
                break
    return _ALL & ~_END & (~sure if negated else possible)


def _category(name: str) -> tuple[int, int]:
    """The characters that a category may contain, and those that it contains in any case."""
    kind = name.rpartition("_")[2]
    if kind == "DIGIT":
        of_ascii = sure = _bits(one for one in range(128) if chr(one).isdigit())
    elif kind == "WORD":
        of_ascii = sure = _bits(one for one in range(128) if chr(one).isalnum() or chr(one) == "_")
    elif kind == "SPACE":
        of_ascii = _bits(one for one in range(128) if chr(one).isspace())
        sure = _bits(b" \t\n\r\f\v")
    else:
        return _ALL, 0
    if "_NOT_" in name:
        return _ALL & ~sure, _ALL & ~_END & ~_BEYOND & ~of_ascii
    return of_ascii | _BEYOND, sure


def _bits(codes: Iterable[int]) -> int:
    """The bits of the ASCII characters among them."""
    return sum({1 << code for code in codes if code < 128})


def _in_any_case(codes: Iterable[int]) -> int:
    bits = 0
    for code in codes:
        if code >= 128:
            bits |= _BEYOND | _bits(b"kKsSiI")  # to `re` some letters beyond ASCII are these
        else:
            letter = chr(code)
            bits |= _bits([code, ord(letter.lower()), ord(letter.upper())])
            bits |= _BEYOND if letter in "kKsSiI" else 0
    return bits
