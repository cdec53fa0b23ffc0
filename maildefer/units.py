"""Numbers with units: written for people, and read from what people write."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST_SECONDS: Final = 10 * 365 * 86400.0  # with so much or more, a time is taken for a mistake


def size(number: float) -> str:
    """A number of bytes: `0 B`, `812 B`, `4.2 kB`, `37 MB`, `1.5 GB`."""
    steps = min((len(f"{number:.0f}") - 1) // 3, 4)
    amount = number / 1000.0**steps
    return f"{amount:.{int(steps > 0 and amount < 10)}f} {('B', 'kB', 'MB', 'GB', 'TB')[steps]}"


def seconds_in(text: str) -> int:
    """The seconds in a text such as `90s`, `15m`, `6h`, `2d` or `1w`; without a unit, seconds. Raises ValueError."""
    digits, unit = (text, "s") if text[-1:].isdigit() else (text[:-1], text[-1:])
    if unit not in _SECONDS or not (digits.isascii() and digits.isdecimal()):
        raise ValueError(f"{text!r} is no time: give a number and a unit, such as 90s, 15m, 6h or 2d")
    return int(digits) * _SECONDS[unit]


def seconds_of(name: str, given: Any, *, least: float = 0.0) -> float:
    """The seconds of a program's argument: a number, or a text as in `seconds_in`. Raises ValueError, with its name."""
    seconds: Any = None
    with suppress(ValueError):
        seconds = seconds_in(given) if isinstance(given, str) else given
    wrong = f"{name}={given!r} is no time: give"
    if type(seconds) not in (int, float):
        raise ValueError(f"{wrong} seconds, or a text such as 90s, 15m, 6h or 2d")
    if not least <= seconds < LONGEST_SECONDS:
        raise ValueError(f"{wrong} {least or 'zero'} or more, and less than ten years")
    return float(seconds)


def span(seconds: float) -> str:
    """Seconds as `seconds_in` reads them, in the largest unit that needs no fraction: `90s`, `15m`, `2d`."""
    unit = max(
        (u for u in _SECONDS if seconds and seconds % _SECONDS[u] == 0), key=_SECONDS.__getitem__, default="s"
    )
    return f"{seconds / _SECONDS[unit]:g}{unit}"
