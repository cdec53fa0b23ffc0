"""Formats numbers for people."""

from __future__ import annotations


def size(number: float) -> str:
    """A number of bytes: `0 B`, `812 B`, `4.2 kB`, `37 MB`, `1.5 GB`."""
    steps = min((len(f"{number:.0f}") - 1) // 3, 4)
    amount = number / 1000.0**steps
    return f"{amount:.{int(steps > 0 and amount < 10)}f} {('B', 'kB', 'MB', 'GB', 'TB')[steps]}"
