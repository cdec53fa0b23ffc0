"""What a front end and its writer share: a socket, and memory for what is too large to go through it.

Through a socket each byte would be copied eight times more, twice by the kernel: of a message of 1 MiB, that was half
of the processor's time.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

_BLOCKS: Final = 32
_MORE_BYTES: Final = 256 << 10  # that a part may be larger by: what came while the last one was on its way
_LEAST_BYTES: Final = 16 << 10  # what is smaller goes through the socket as quickly


class Span(NamedTuple):
    """Bytes in an arena."""

    at: int
    size: int


class Arena:
    """Blocks of memory that both processes see; only those that were once used take any.

    The front end gives them out and takes them back. The writer reads one between the job that names it and its answer
    to that. So nothing is to be locked.
    """

    def __init__(self, block_bytes: int, *, blocks: int = _BLOCKS) -> None:
        """Before the processes part."""
        self._block_bytes = block_bytes
        self._memory = memoryview(mmap.mmap(-1, blocks * block_bytes))
        self._free = list(range(0, blocks * block_bytes, block_bytes))

    @property
    def free(self) -> int:
        """Blocks that can be had."""
        return len(self._free)

    def put(self, pieces: Sequence[bytes | memoryview]) -> Span | None:
        """Copy them into a block, one behind the other; None where they are better sent, or no block is free."""
        size = sum(map(len, pieces))
        if not _LEAST_BYTES <= size <= self._block_bytes or not self._free:
            return None
        begin = at = self._free.pop()  # that which was given back last, and is still in the processor's cache
        for piece in pieces:
            self._memory[at : at + len(piece)] = piece
            at += len(piece)
        return Span(begin, size)

    def give_back(self, span: Span) -> None:
        """Once the writer has answered, whatever its answer is."""
        self._free.append(span.at)

    def get(self, span: Span) -> memoryview:
        return self._memory[span.at : span.at + span.size].toreadonly()


class Link(NamedTuple):
    """One process's end."""

    socket: socket.socket
    arena: Arena
    local: bool
    """Whether the queue is on a disk of this machine."""


def pair(buffer_bytes: int, *, local: bool) -> tuple[Link, Link]:
    """Both ends, for messages that come in parts of so many bytes and more."""
    arena = Arena(buffer_bytes + _MORE_BYTES)
    ours, theirs = socket.socketpair()
    return Link(ours, arena, local), Link(theirs, arena, local)
