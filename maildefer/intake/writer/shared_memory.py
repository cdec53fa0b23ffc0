"""The link between a front end and its writer: a socket, and shared memory for large messages.

Through a socket each byte would be copied eight times more, twice of them by the kernel: half of the processor time for
a message of 1 MiB.
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
_EXTRA_BYTES: Final = 256 << 10  # that a part may exceed buffer_bytes by, for input that came meanwhile
_F_SEAL_FUTURE_WRITE: Final = 0x10  # fcntl(2); the standard library lacks a name for it
_MIN_BYTES: Final = 16 << 10  # smaller messages go through the socket as quickly


class Span(NamedTuple):
    """The place of a message's bytes in shared memory."""

    at: int
    size: int


class SharedBlocks:
    """Blocks of memory that both processes see; a block takes memory once it has been used.

    The front end alone allocates and releases them. The writer reads a block between a job with its span and the answer
    to that job. So no lock is needed.
    """

    def __init__(
        self, block_bytes: int, *, blocks: int = _BLOCKS, descriptor: int = -1, writable: bool = True
    ) -> None:
        """To be made before the fork. It maps the file of `descriptor`, or else anonymous memory."""
        self._block_bytes = block_bytes
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._map = mmap.mmap(descriptor, blocks * block_bytes, prot=protection)
        self._memory = memoryview(self._map)
        self._free = list(range(0, blocks * block_bytes, block_bytes))

    def close(self) -> None:
        """Unmap it: it is the other process's."""
        self._memory.release()
        self._map.close()

    @property
    def free_blocks(self) -> int:
        """The number of free blocks."""
        return len(self._free)

    def put(self, pieces: Sequence[bytes | memoryview]) -> Span | None:
        """Copy pieces into a block; None where their size does not suit, or no block is free."""
        size = sum(map(len, pieces))
        if not _MIN_BYTES <= size <= self._block_bytes or not self._free:
            return None
        begin = at = self._free.pop()  # the one released last, which is still in the processor's cache
        for piece in pieces:
            self._memory[at : at + len(piece)] = piece
            at += len(piece)
        return Span(begin, size)

    def release_block(self, span: Span) -> None:
        """Release a block once the writer has answered, whatever the answer is."""
        self._free.append(span.at)

    def get(self, span: Span) -> memoryview:
        return self._memory[span.at : span.at + span.size].toreadonly()


class WriterLink(NamedTuple):
    """One process's end of the link."""

    socket: socket.socket
    blocks: SharedBlocks
    local: bool
    """Whether the queue is on a local disk."""


def make_links(buffer_bytes: int, *, local: bool) -> tuple[WriterLink, WriterLink]:
    """The front end's end and the writer's, for parts of so many bytes and more."""
    front, back = _two_views(buffer_bytes + _EXTRA_BYTES)
    ours, theirs = socket.socketpair()
    return WriterLink(ours, front, local), WriterLink(theirs, back, local)


def keep_end(mine: WriterLink, other: WriterLink) -> None:
    """Close the other process's end; to be called in both."""
    other.socket.close()
    if other.blocks is not mine.blocks:
        other.blocks.close()


def _two_views(block_bytes: int) -> tuple[SharedBlocks, SharedBlocks]:
    """Map the same memory for writing and for reading; its seals forbid to truncate it and to map it for writing."""
    try:
        descriptor = os.memfd_create("blocks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
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
