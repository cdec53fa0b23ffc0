"""The connections of all processes of a front end, in memory that they share.

Each process has a row, which it alone writes, and reads those of the others. So nothing is ever locked: a process that
is stopped in the middle of anything holds up no other, and what it still has open still counts. A connection is entered
first and counted then. Of two that come to the last free place at once both may be refused; never are both let in.

The starter of the processes clears the row of one that has ended, however it did.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import sys
from typing import Final, NamedTuple

_WORD: Final = 8
_HEAD_WORDS: Final = 2  # of each row: how many connections; how many of its cells were ever used


class TableRow(NamedTuple):
    """Which row of which table is a process's. Without a descriptor the table is its own."""

    descriptor: int = -1
    number: int = 0
    rows: int = 1

    def __str__(self) -> str:
        return ":".join(map(str, self))


ALONE: Final = TableRow()


def parse_row(text: str) -> TableRow:
    """`FD:NUMBER:ROWS`, as the command line has it. Raises ValueError."""
    descriptor, number, rows = map(int, text.split(":"))
    if not 0 <= number < rows:
        raise ValueError(f"there is no row {number} of {rows}")
    return TableRow(descriptor, number, rows)


def make_table() -> int:
    """A table for processes that are going to be executed; returns its descriptor.

    It may only grow: a process that has mapped what another cut off would be ended by SIGBUS.
    """
    descriptor = os.memfd_create("connections", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor


def clear_row(row: TableRow) -> None:
    """Remove the connections of a process that has ended."""
    os.pwrite(row.descriptor, bytes(_HEAD_WORDS * _WORD), row.number * _HEAD_WORDS * _WORD)


class ConnectionTable:
    """The table of all processes, which each reads, and one process's row, which it alone writes."""

    def __init__(self, row: TableRow, cells: int) -> None:
        """`cells`: how many connections a row can hold with their clients; the same in all processes."""
        size = (row.rows * (_HEAD_WORDS + cells)) * _WORD
        if row.descriptor >= 0 and os.fstat(row.descriptor).st_size < size:
            os.ftruncate(row.descriptor, size)
        self._memory = mmap.mmap(row.descriptor, size)
        self._words = memoryview(self._memory).cast("Q")
        self._cells = cells
        self._rows = row.rows
        self._head = row.number * _HEAD_WORDS
        self._first = self._first_cell(row.number)
        self._free: list[int] = []
        # Of this process, which reckons with this figure, and only tells it to the others.
        self.connections = 0
        self._used = 0
        self._words[self._head] = self._words[self._head + 1] = 0

    @property
    def connections_of_all(self) -> int:
        """The connections of all processes: of each no more than it can have, whatever a broken one has written."""
        most = self._cells
        return sum(min(one, most) for one in self._words[: self._rows * _HEAD_WORDS : _HEAD_WORDS])

    def add_connection(self) -> None:
        self.connections += 1
        self._words[self._head] = self.connections

    def remove_connection(self) -> None:
        self.connections -= 1
        self._words[self._head] = self.connections

    def enter_client(self, client: int) -> int:
        """Enter one connection's client, which is not 0; returns the cell for `erase_client`."""
        cell = self._free.pop() if self._free else self._used
        self._words[self._first + cell] = client
        if cell == self._used:
            self._used += 1
            self._words[self._head + 1] = self._used  # only now others look there
        return cell

    def erase_client(self, cell: int) -> None:
        self._words[self._first + cell] = 0
        self._free.append(cell)

    def count(self, client: int) -> int:
        """How many connections of all processes are that client's."""
        wanted = client.to_bytes(_WORD, sys.byteorder)
        return sum(self._count_in(number, wanted) for number in range(self._rows))

    def _count_in(self, number: int, wanted: bytes) -> int:
        """Count in one row, by searching bytes: a hundred times quicker than word by word."""
        begin = self._first_cell(number) * _WORD
        used = min(self._words[number * _HEAD_WORDS + 1], self._cells)
        cells = self._memory[begin : begin + used * _WORD]
        found, at = 0, cells.find(wanted)
        while at >= 0:
            found += at % _WORD == 0  # else it is made of the end of one word and the beginning of the next
            at = cells.find(wanted, at + 1)
        return found

    def _first_cell(self, number: int) -> int:
        return self._rows * _HEAD_WORDS + number * self._cells
