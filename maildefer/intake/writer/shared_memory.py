"""What a front end and its writer share: a socket, and memory for what is too large to go through it.

Through a socket each byte would be copied eight times more, twice by the kernel: of a message of 1 MiB, that was half
of the processor's time.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

_BLOCKS: Final = 32
_MORE_BYTES: Final = 256 << 10  # that a part may be larger by: what came while the last one was on its way
_F_SEAL_FUTURE_WRITE: Final = 0x10  # fcntl(2); the standard library lacks a name for it
_LEAST_BYTES: Final = 16 << 10  # what is smaller goes through the socket as quickly


class Span(NamedTuple):
    """Bytes in an arena."""

    at: int
    size: int


class SharedBlocks:
    """Blocks of memory that both processes see; only those that were once used take any.

    The front end gives them out and takes them back. The writer reads one between the job that names it and its answer
    to that. So nothing is to be locked.
    """

    def __init__(
        self, block_bytes: int, *, blocks: int = _BLOCKS, descriptor: int = -1, writable: bool = True
    ) -> None:
        """Before the processes part. With a descriptor, that file's memory, else memory of its own."""
        self._block_bytes = block_bytes
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(descriptor, blocks * block_bytes, prot=protection)
        self._memory = memoryview(self._map)
        self._free = list(range(0, blocks * block_bytes, block_bytes))

    def close(self) -> None:
        """It is the other process's."""
        self._memory.release()
        self._map.close()

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


class WriterLink(NamedTuple):
    """One process's end."""

    socket: socket.socket
    arena: SharedBlocks
    local: bool
    """Whether the queue is on a disk of this machine."""


def pair(buffer_bytes: int, *, local: bool) -> tuple[WriterLink, WriterLink]:
    """The front end's end and the writer's, for messages that come in parts of so many bytes and more."""
    front, back = _arenas(buffer_bytes + _MORE_BYTES)
    ours, theirs = socket.socketpair()
    return WriterLink(ours, front, local), WriterLink(theirs, back, local)


def part(mine: WriterLink, other: WriterLink) -> None:
    """In each of the two processes: let go of the other's end."""
    other.socket.close()
    if other.arena is not mine.arena:
        other.arena.close()


def _arenas(block_bytes: int) -> tuple[SharedBlocks, SharedBlocks]:
    """To write to and to read, of the same memory, which nobody can cut off or map anew to write to it."""
    try:
        descriptor = os.memfd_create("arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:
        return (one := SharedBlocks(block_bytes)), one
    try:
        os.ftruncate(descriptor, _BLOCKS * block_bytes)
        front = SharedBlocks(block_bytes, descriptor=descriptor)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        with suppress(OSError):  # before Linux 5.1
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
        return front, SharedBlocks(block_bytes, descriptor=descriptor, writable=False)
    except OSError:  # a limit on the size of files
        return (one := SharedBlocks(block_bytes)), one
    finally:
        os.close(descriptor)
