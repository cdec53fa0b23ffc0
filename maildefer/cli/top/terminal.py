"""A terminal that is drawn on as a whole, and gives keys one by one; at any end it is as it was before."""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ENTER: Final = b"\x1b[?1049h\x1b[?25l"  # the other screen, without a cursor
_LEAVE: Final = b"\x1b[?25h\x1b[?1049l"
_SEQUENCES: Final = {
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "first", "\x1bOH": "first", "\x1b[1~": "first", "\x1b[F": "last", "\x1bOF": "last", "\x1b[4~": "last",
    "k": "up", "j": "down", "\r": "enter", "\n": "enter", "\x1b": "back", "\x7f": "back",
}  # fmt: skip


class Terminal:
    """Standard input and output. Event loop only."""

    def __init__(self) -> None:
        self.keys: asyncio.Queue[str] = asyncio.Queue()
        self._drawn: list[str] = []

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as the terminal says now: COLUMNS and LINES do not follow a change."""
        columns, lines = os.get_terminal_size(1)
        return columns or 80, lines or 24

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Take the terminal for a block. INT is a signal still; nothing stops or suspends the output."""
        loop, before = asyncio.get_running_loop(), termios.tcgetattr(0)
        mode = termios.tcgetattr(0)
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ECHO | termios.ICANON)
        mode[6][termios.VSUSP] = b"\0"
        try:
            termios.tcsetattr(0, termios.TCSADRAIN, mode)
            os.write(1, _ENTER)
            loop.add_reader(0, self._read)
            yield
        finally:
            loop.remove_reader(0)
            os.write(1, _LEAVE)
            termios.tcsetattr(0, termios.TCSADRAIN, before)

    def draw(self, lines: list[str], *, anew: bool = False) -> None:
        """Show these lines, of which only those that have changed are written."""
        height = self.size[1]
        lines = [*lines[:height], *[""] * (height - len(lines))]
        before = [] if anew or len(self._drawn) != height else self._drawn
        changed = [
            f"\x1b[{row + 1};1H{line}\x1b[0m\x1b[K"
            for row, line in enumerate(lines)
            if not before or before[row] != line
        ]
        data = "".join(["\x1b[2J" if not before else "", *changed]).encode(errors="backslashreplace")
        while data:
            data = data[os.write(1, data) :]
        self._drawn = lines

    def _read(self) -> None:
        text = os.read(0, 1024).decode(errors="replace")
        if not text:
            self.keys.put_nowait("end")
        while text:
            sequence = next((one for one in _SEQUENCES if len(one) > 1 and text.startswith(one)), text[0])
            text = text[len(sequence) :]
            self.keys.put_nowait(_SEQUENCES.get(sequence, sequence))
