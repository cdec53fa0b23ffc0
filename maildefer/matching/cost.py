"""Estimates how long a match may take in the worst case, from the regular expression alone.

`re` tries every way in which the beginning of an expression can match before it fails. The number of ways, and the
work for them, are polynomials in the length of the text, or have no useful bound: a repeat whose body may match in
several ways. A repeat that can end in one place only, since the text behind it begins with other characters
(`[a-z]+@`, `(?:[a-z]+[.])*$`), has one way. For an unknown construct the worst is assumed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import factorial
from typing import Any, Final, NamedTuple

from maildefer.matching import first_sets
from maildefer.matching.first_sets import FirstSet
from maildefer.matching.literals import REPEATS, tree_of

LENGTH: Final = 320  # of the texts, in characters
_LONG: Final = 20  # rounds; a repeat of so many counts as one without bound
_SIMPLE: Final = 2
_HIGHEST: Final = 8  # power of the length
_ALLOWED: Final = 500e6

# Nanoseconds, about: measured with the worst texts for each.
_CHARACTER: Final = 5.0
_SET: Final = 10.0
_ROUND: Final = 15.0
_GROUP: Final = 10.0
_BRANCH: Final = 10.0

# By powers of the length: the number of positions in order, each anywhere behind the one before.
Powers = tuple[float, ...]
_NONE: Final[Powers] = (0.0,)
_ONE: Final[Powers] = (1.0,)
_ANYWHERE: Final[Powers] = (0.0, 1.0)


class _Unbounded(Exception):
    """No bound of the time exists, or none is known."""


class _Part(NamedTuple):
    ways: Powers  # in which it may match, from one place
    work: Powers  # to go through all of them
    swept: Powers | None = None  # the work from each of many places, per place, if that is less
    sweeps: bool = False  # whether its ways end in as many places


def may_take_long(regex: str) -> bool:
    """Whether a match with an address may take longer than a fraction of a second."""
    if _is_simple(regex):
        return False
    found = tree_of(regex)
    if found is None:
        return True
    tree, flags = found
    try:
        work = _sequence(list(tree), first_sets.ANYTHING, flags).work
    except (_Unbounded, RecursionError):
        return True
    nanoseconds: float = sum(much * LENGTH**power / factorial(power) for power, much in enumerate(work))
    return nanoseconds > _ALLOWED


def _is_simple(regex: str) -> bool:
    """Whether it has two choices at most, none inside the other, as most routes do: then no tree is needed."""
    named = regex.count("(?P<")
    return (
        sum(map(regex.count, "*+?{|")) - named <= _SIMPLE
        and regex.count("(?") == named
        and not any(repeated in regex for repeated in (")*", ")+", ")?", "){"))
        and len(regex) <= LENGTH
    )


def _sequence(items: Sequence[tuple[Any, Any]], following: FirstSet, flags: int) -> _Part:
    """The cost of several items in a row; `following` is the first set of the text behind them."""
    parts: list[_Part] = []
    for item in reversed(list(_joined(items))):
        parts.append(_part(item, following, flags))
        following = first_sets.entry(
            ("LITERAL", item[0]) if isinstance(item, list) else item, following, flags
        )
    ways, work, sweeps = _ONE, _NONE, False
    for part in reversed(parts):
        here = part.swept if sweeps and part.swept is not None else part.work
        work = _sum(work, _product(ways, here))
        ways = _product(ways, part.ways)
        sweeps = part.sweeps
    return _Part(ways, work, sweeps=sweeps)


def _joined(items: Sequence[tuple[Any, Any]]) -> Iterator[Any]:
    """The items, with each run of literal characters as one."""
    for literal, group in groupby(items, lambda item: str(item[0]) == "LITERAL"):
        if literal:
            yield [item[1] for item in group]
        else:
            yield from group


def _part(item: Any, following: FirstSet, flags: int) -> _Part:
    if isinstance(item, list):
        return _run(item)
    operation, value = item
    name = str(operation)
    if name in REPEATS:
        return _repeat(name, value, following, flags)
    match name:
        case "IN" | "ANY" | "NOT_LITERAL" | "AT":
            return _Part(_ONE, (_SET,))
        case "SUBPATTERN":
            inner = _sequence(value[3], following, (flags | value[1]) & ~value[2])
            return inner._replace(work=_sum(inner.work, (_GROUP,)))
        case "BRANCH":
            return _branch(value[1], following, flags)
        case "ASSERT" | "ASSERT_NOT":
            return _once(_sequence(value[1], first_sets.ANYTHING, flags))
        case "ATOMIC_GROUP":
            return _once(_sequence(value, first_sets.ANYTHING, flags))
        case "GROUPREF":
            return _Part(_ONE, (_SET, _CHARACTER))
        case "GROUPREF_EXISTS":
            return _branch([value[1], value[2] or []], following, flags)
        case _:
            raise _Unbounded


def _run(characters: list[int]) -> _Part:
    """The cost of a run of characters: from many places in order, each is compared with its own kind only."""
    most = max(Counter(chr(character).lower() for character in characters).values())
    return _Part(_ONE, (_CHARACTER * len(characters),), swept=(_CHARACTER * min(len(characters), 1 + most),))


def _once(part: _Part) -> _Part:
    """The cost of a part to which a match never goes back."""
    return _Part(_ONE, _sum(part.work, (_GROUP,)))


def _branch(alternatives: Sequence[Any], following: FirstSet, flags: int) -> _Part:
    parts = [_sequence(alternative, following, flags) for alternative in alternatives]
    ways, work = parts[0].ways, _NONE
    exclusive = first_sets.exclude_each_other(alternatives, following, flags)
    for part in parts[1:]:
        ways = _most(ways, part.ways) if exclusive else _sum(ways, part.ways)
    for part in parts:
        work = _sum(work, _sum(part.work, (_BRANCH,)))
    return _Part(ways, work)


def _repeat(name: str, value: Any, following: FirstSet, flags: int) -> _Part:
    least, most, tree = int(value[0]), int(value[1]), list(value[2])
    again = first_sets.sequence_entry(tree, following, flags)
    body = _sequence(tree, again.or_else(following), flags)
    if name == "POSSESSIVE_REPEAT":
        body = _once(body)
    ends_once = least == most or name == "POSSESSIVE_REPEAT" or not again.characters & following.characters
    turn = _sum(body.work, (_ROUND + (following.work if ends_once else 0.0),))
    if body.ways == _ONE:
        rounds: Powers = _ANYWHERE if most >= _LONG else (float(most),)
        work = _sum(_product(rounds, turn), (_ROUND,))
        if ends_once:
            return _Part(_ONE, work)
        if most < _LONG:
            return _Part((most - least + 1.0,), work)
        return _Part(_ANYWHERE, work, sweeps=True)
    if most >= _LONG:
        raise _Unbounded
    return _few_rounds(body.ways, turn, 1 if most == 1 and ends_once else least, most)


def _few_rounds(each: Powers, turn: Powers, least: int, most: int) -> _Part:
    ways, work, so_far = _NONE, _sum(_NONE, (_ROUND,)), _ONE
    for done in range(most + 1):
        if done >= least:
            ways = _sum(ways, so_far)
        if done < most:
            work = _sum(work, _product(so_far, turn))
            so_far = _product(so_far, each)
    return _Part(ways, work)


def _sum(one: Powers, other: Powers) -> Powers:
    if len(one) < len(other):
        one, other = other, one
    return (*(a + b for a, b in zip(one, other, strict=False)), *one[len(other) :])


def _most(one: Powers, other: Powers) -> Powers:
    if len(one) < len(other):
        one, other = other, one
    return (*(max(a, b) for a, b in zip(one, other, strict=False)), *one[len(other) :])


def _product(one: Powers, other: Powers) -> Powers:
    """The product: each position of one with each position of the other behind it."""
    if one == _ONE:
        return other
    if len(one) + len(other) > _HIGHEST + 2:
        raise _Unbounded
    product = [0.0] * (len(one) + len(other) - 1)
    for power, much in enumerate(one):
        for higher, more in enumerate(other, power):
            product[higher] += much * more
    if max(product) > _ALLOWED:  # long before it is more than a number can hold
        raise _Unbounded
    return tuple(product)
