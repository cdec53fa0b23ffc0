"""The connections of all processes of a front end, in memory that they share.

Each process has a place in it, where it alone writes, and reads those of the others. So nothing is ever locked: who is
stopped in the middle of anything holds up nobody, and what it still has open still counts. Who comes is noted first and
counted then. Of two who come to the last free place at once both may be turned away; never are both let in.

Whoever started the processes clears the place of one that has ended, however it did.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from typing import Final, NamedTuple

_WORD: Final = 8
_HEAD_WORDS: Final = 2  # of each place: how many connections; how many of its lines were ever used


class TableRow(NamedTuple):
    """A process's. Without a descriptor the book is its own."""

    descriptor: int = -1
    number: int = 0
    places: int = 1

    def __str__(self) -> str:
        return ":".join(map(str, self))


ALONE: Final = TableRow()


def place(text: str) -> TableRow:
    """`FD:NUMBER:PLACES`, as the command line has it. Raises ValueError."""
    descriptor, number, places = map(int, text.split(":"))
    if not 0 <= number < places:
        raise ValueError(f"there is no place {number} of {places}")
    return TableRow(descriptor, number, places)


def make() -> int:
    """A book for processes that are going to be executed; returns its descriptor.

    It may only grow: whoever has mapped what another cut off would be ended by SIGBUS.
    """
    descriptor = os.memfd_create("guestbook", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor


def clear(at: TableRow) -> None:
    """Its process has ended."""
    os.pwrite(at.descriptor, bytes(_HEAD_WORDS * _WORD), at.number * _HEAD_WORDS * _WORD)


class ConnectionTable:
    """One process's view, and its pen."""

    def __init__(self, at: TableRow, lines: int) -> None:
        """`lines`: how many connections the process can note with their clients; the same in all processes."""
        size = (at.places * (_HEAD_WORDS + lines)) * _WORD
        if at.descriptor >= 0 and os.fstat(at.descriptor).st_size < size:
            os.ftruncate(at.descriptor, size)
        self._memory = mmap.mmap(at.descriptor, size)
        self._words = memoryview(self._memory).cast("Q")
        self._lines = lines
        self._places = at.places
        self._head = at.number * _HEAD_WORDS
        self._first = self._first_line(at.number)
        self._free: list[int] = []
        self.connections = 0  # this process's; what it reckons with is its own, and only told to the others
        self._used = 0
        self._words[self._head] = self._words[self._head + 1] = 0

    @property
    def connections_of_all(self) -> int:
        """No more of each than it can have, whatever a broken one has put there."""
        most = self._lines
        return sum(min(one, most) for one in self._words[: self._places * _HEAD_WORDS : _HEAD_WORDS])

    def come(self) -> None:
        self.connections += 1
        self._words[self._head] = self.connections

    def go(self) -> None:
        self.connections -= 1
        self._words[self._head] = self.connections

    def note(self, client: int) -> int:
        """Note one connection's client, which is not 0; returns the line for `strike`."""
        line = self._free.pop() if self._free else self._used
        self._words[self._first + line] = client
        if line == self._used:
            self._used += 1
            self._words[self._head + 1] = self._used  # only now others look there
        return line

    def strike(self, line: int) -> None:
        self._words[self._first + line] = 0
        self._free.append(line)

    def count(self, client: int) -> int:
        """How many connections of all processes are that client's."""
        wanted = client.to_bytes(_WORD, sys.byteorder)
        return sum(self._count_in(number, wanted) for number in range(self._places))

    def _count_in(self, number: int, wanted: bytes) -> int:
        """By searching bytes: a hundred times quicker than word by word."""
        begin = self._first_line(number) * _WORD
        used = min(self._words[number * _HEAD_WORDS + 1], self._lines)
        lines = self._memory[begin : begin + used * _WORD]
        found, at = 0, lines.find(wanted)
        while at >= 0:
            found += at % _WORD == 0  # else it is made of the end of one word and the beginning of the next
            at = lines.find(wanted, at + 1)
        return found

    def _first_line(self, number: int) -> int:
        return self._places * _HEAD_WORDS + number * self._lines
