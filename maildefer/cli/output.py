"""Printing: data to standard output, all else to standard error. Text from entries is untrusted."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence

from maildefer.events import plain
from maildefer.units import size as size


def clean(text: object) -> str:
    """Text escaped for a terminal: nothing in it moves the cursor, changes the direction or forges a line."""
    return plain(str(text))


def line(text: str) -> None:
    """Print one line of data, which must be clean already; what can't be encoded is escaped."""
    try:
        print(text)
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding))


def record(facts: dict[str, object]) -> None:
    """Print one line of JSON Lines, in ASCII, which is safe on a terminal too."""
    print(json.dumps(facts, default=str).replace("\x7f", "\\u007f"))


def flush() -> None:
    """Show what has been printed so far."""
    sys.stdout.flush()


def raw(data: bytes) -> None:
    """Write bytes unchanged, for pipes and files."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Print to standard error what was done and what may be done next."""
    print(clean_lines(text), file=sys.stderr)


def complain(text: str) -> None:
    """Print an error as one line."""
    print(f"maildefer: {clean(text.strip())}", file=sys.stderr)


def clean_lines(text: str) -> str:
    return "\n".join(map(clean, text.split("\n")))


def table(rows: Iterable[Sequence[object]], head: Sequence[str] = ()) -> None:
    """Print rows in aligned columns, cleaned; the last column is not padded."""
    cells = [[clean(cell) for cell in row] for row in ([head] if head else []) + list(rows)]
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in cells), strict=True)]
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        line("  ".join([*padded, row[-1]]).rstrip())


def duration(seconds: float) -> str:
    """A duration in one unit: `850 ms`, `12 s`, `5 min`, `3.2 h`, `4.1 d`."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for limit, unit, divisor in ((1, "ms", 0.001), (120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / divisor:.0f} {unit}" if unit != "h" else f"{seconds / divisor:.1f} h"
    return f"{seconds / 86400:.1f} d"


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def confirmed(question: str, yes: bool) -> bool:
    """Whether to go on: `--yes`, or the answer on a terminal; without a terminal no."""
    if yes:
        return True
    if not (os.isatty(0) and os.isatty(2)):
        complain(f"{question} Say so with --yes.")
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
