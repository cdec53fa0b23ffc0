"""Tells from a regular expression alone whether a match may take long.

`re` tries every way in which the beginning of an expression can match before it fails. With a few repeats and
alternatives in a row, the ways are a small power of the text's length; with one inside another, or with many, they have
no useful bound. Which of the latter are harmless all the same is not looked for: those are matched under a limit.
"""

from __future__ import annotations

from typing import Final

LENGTH: Final = 320  # of the texts, in characters
_CHOICES: Final = 3  # in a row: five million ways, a second at the worst
_LONGEST_OF_MANY: Final = (
    160  # of an expression with three, whose literal text may be compared in each of these ways
)
_CHOOSES: Final = "*+?{|"
_REPEATED_GROUPS: Final = (")*", ")+", ")?", "){")
_REFERENCES: Final = tuple(f"\\{number}" for number in range(1, 10))


def may_take_long(regex: str) -> bool:
    """Whether a match with a text of `LENGTH` may take longer than a second."""
    named = regex.count("(?P<")
    choices = sum(map(regex.count, _CHOOSES)) - named
    return (
        choices > _CHOICES
        or len(regex) > (LENGTH if choices < _CHOICES else _LONGEST_OF_MANY)
        or regex.count("(?") != named
        or any(part in regex for part in _REPEATED_GROUPS)
        or any(reference in regex for reference in _REFERENCES)
    )
