"""Arguments of tasks as JSON: plain values as they are, values of other types by a name and what they are made of.

A call with plain values only is written and read as it is. In one with others, which says so, `{"__type__": [NAME,
VALUE]}` stands for a value of that type; a dict with such a name of its own is written as one of the type `dict`.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import NoneType
from typing import Any, Final, TypeVar

from maildefer.errors import MaildeferError
from maildefer.handling.outcomes import Reject

T = TypeVar("T")

_MARK: Final = "__type__"
_DICT: Final = "dict"
_LONGEST_NAME: Final = 100
_PLAIN: Final = (str, int, float, bool, NoneType)
_ADVICE: Final = {
    "tuple": "give a list, as it would come out of JSON as one",
    "set": "give a list",
    "frozenset": "give a list",
}
_MISREAD: Final = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)


class ArgumentsRefused(MaildeferError, TypeError):
    """The arguments don't fit the function, or can't be written as JSON and read again as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentType:
    """A type that arguments may have: its name in calls, and its values as what JSON has, or as other such types."""

    name: str
    full_name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def register_type(
    kind: type[T], name: str, *, encode: Callable[[T], Any], decode: Callable[[Any], T]
) -> None:
    """Let arguments of tasks be of this class; call it in the module that defines the class, or the task.

    Calls hold the name and what `encode` returns, which is plain, or of such types itself; `decode` takes that. It has
    to read what was written by any version of it whose calls may wait. Subclasses are types of their own. Raises
    TypeError, ValueError for a class or a name that is in use.
    """
    what = f"register_type({getattr(kind, '__qualname__', kind)!s}, {name!r})"
    if not isinstance(kind, type):
        raise TypeError(f"{what}: give a class first")
    if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME):
        raise ValueError(f"{what}: give a name of 1 to {_LONGEST_NAME} printable characters")
    if not (callable(encode) and callable(decode)):
        raise TypeError(f"{what}: encode and decode have to be functions of one value")
    full_name = _full_name(kind)
    if kind in (*_PLAIN, list, dict) or full_name in _BUILT_IN:
        raise ValueError(f"{what}: arguments may be of this class without it")
    for known in (*_by_name.values(), *_by_class.values()):
        if (known.name == name) != (known.full_name == full_name):
            raise ValueError(f"{what}: {known.full_name} has the name {known.name!r}: one name for one class")
    if name == _DICT:
        raise ValueError(f"{what}: {_DICT!r} has a meaning already: give another name")
    _by_name[name] = _by_class[kind] = ArgumentType(
        name=name, full_name=full_name, encode=encode, decode=decode
    )


def argument(value: Any, name: str, typed: set[str]) -> Any:
    """The value as JSON has it; adds to `typed` the types that this needed. Raises ArgumentsRefused naming it."""
    try:
        return _written(value, name, typed)
    except RecursionError as fault:
        raise ArgumentsRefused(
            f"{name} is nested too deep, or holds itself, or its type is encoded as what holds one of that type: "
            "give plain values"
        ) from fault


def _written(value: Any, place: str, typed: set[str]) -> Any:
    kind = type(value)
    if kind is float and not math.isfinite(value):
        raise ArgumentsRefused(f"{place} is {value}, which is no number of JSON")
    if kind in _PLAIN:
        return value
    if kind is list:
        return [_written(one, f"{place}[{number}]", typed) for number, one in enumerate(value)]
    if kind is dict:
        for name in value:
            if type(name) is not str:
                raise ArgumentsRefused(f"{place} has the key {name!r}: give texts for keys")
        inner = {name: _written(one, f"{place}[{name!r}]", typed) for name, one in value.items()}
        return {_MARK: [_DICT, inner]} if _MARK in inner else inner
    if (known := _by_class.get(kind) or _BUILT_IN.get(_full_name(kind))) is None:
        otherwise = "give plain values, or register its class by maildefer.tasks.register_type"
        raise ArgumentsRefused(
            f"{place} is of {_full_name(kind).removeprefix('builtins.')}: {_ADVICE.get(kind.__name__, otherwise)}"
        )
    try:
        encoded = known.encode(value)
    except Exception as fault:
        raise ArgumentsRefused(
            f"{place} can't be encoded as {known.name}: {type(fault).__name__}: {fault}"
        ) from fault
    typed.add(known.name)
    return {_MARK: [known.name, _written(encoded, place, typed)]}


def restored(value: Any) -> Any:
    """The value of which `argument` has made this. Raises Reject for types that are not known, and misread values."""
    if type(value) is list:
        return [restored(one) for one in value]
    if type(value) is not dict:
        return value
    if _MARK not in value:
        return {name: restored(one) for name, one in value.items()}
    match value:
        case {"__type__": ["dict", dict() as inner], **more} if not more:
            return {name: restored(one) for name, one in inner.items()}
        case {"__type__": [str() as name, inner], **more} if not more:
            return _decoded(name, restored(inner))
    raise Reject(f"an argument that stands for no value: {value!r:.200}")


def survives(before: Any, after: Any) -> bool:
    """Whether both are of the same types at all levels, and equal where they are plain."""
    if type(before) is not type(after):
        return False
    if isinstance(before, list):
        return len(before) == len(after) and all(map(survives, before, after))
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(survives(before[name], after[name]) for name in before)
    return type(before) not in _PLAIN or before == after


def _decoded(name: str, value: Any) -> Any:
    if (known := _by_name.get(name)) is None:
        raise Reject(
            f"an argument is of the type {name!r}, which nothing here registers: was that removed, or is this host's "
            "version older than the caller's? Register it in the module of the task, and requeue the call"
        )
    try:
        return known.decode(value)
    except _MISREAD as fault:
        raise Reject(
            f"an argument of the type {name!r} can't be read: {type(fault).__name__}: {fault}: make its decode take "
            f"what was written, and requeue the call: {value!r:.200}"
        ) from fault


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _aware(value: datetime) -> str:
    if value.utcoffset() is None:
        raise ValueError("it has no time zone: give one, as datetime.now(UTC) has")
    return value.isoformat()


def _time(value: time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError(f"{value.tzinfo} has no offset without a date: give a datetime")
    return value.isoformat()


def _decimal(text: str) -> Any:
    from decimal import Decimal  # here and below: an idle pool does without it

    return Decimal(text)


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def _base64(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode()


_BUILT_IN: Final = {
    full_name: ArgumentType(name=name, full_name=full_name, encode=encode, decode=decode)
    for full_name, name, encode, decode in (
        ("datetime.date", "date", date.isoformat, date.fromisoformat),
        ("datetime.datetime", "datetime", _aware, datetime.fromisoformat),
        ("datetime.time", "time", _time, time.fromisoformat),
        (
            "datetime.timedelta",
            "timedelta",
            lambda value: [value.days, value.seconds, value.microseconds],
            lambda parts: timedelta(*parts),
        ),
        ("uuid.UUID", "uuid", str, _uuid),
        ("decimal.Decimal", "decimal", str, _decimal),
        ("builtins.bytes", "bytes", _base64, binascii.a2b_base64),
    )
}
_by_name: Final = {known.name: known for known in _BUILT_IN.values()}
_by_class: Final[dict[type, ArgumentType]] = {}
