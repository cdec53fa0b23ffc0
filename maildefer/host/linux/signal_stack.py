"""Stack dumps of a process that dies in C code or is aborted, by faulthandler, on a signal stack that is large enough.

While faulthandler is on, every handler of Python's runs on its alternate stack too (SA_ONSTACK), which it takes from
the heap, for two frames. A frame holds all registers: 3.4 KB with AVX-512, 11 KB with AMX. Signals that arrive together
stack their frames, so that five at once are written over what lies before it in the heap.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    addressof,
    byref,
    c_char,
    c_int,
    c_size_t,
    c_ulong,
    c_void_p,
    get_errno,
)
from typing import Final

_AT_MINSIGSTKSZ: Final = 51  # getauxval(3)
_OLDEST_MINSIGSTKSZ: Final = 2048  # where the kernel does not tell
_HANDLER_BYTES: Final = 4096  # what one handler's own C frames take, amply
_REGION_BYTES: Final = 1 << 18  # of which only what is written takes memory
_NOT_OF_THE_STACK: Final = "Extension modules: "
_libc = CDLL(None, use_errno=True)
_libc.getauxval.restype = c_ulong

_stack: mmap.mmap | None = None


class _Stack(Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("sp", c_void_p), ("flags", c_int), ("size", c_size_t))


_libc.sigaltstack.argtypes = (POINTER(_Stack), POINTER(_Stack))


class StackDumps:
    """Memory for the stack dumps of many processes, a region for each; it outlives them, and its maker reads it.

    Made before the fork. Each process writes through a file description of its own, so that no two move one offset.
    """

    def __init__(self, slots: int) -> None:
        """Make an empty region for each of so many slots. Raises OSError."""
        self._descriptor = os.memfd_create("maildefer-dumps", os.MFD_CLOEXEC)
        os.ftruncate(self._descriptor, slots * _REGION_BYTES)

    def open(self, slot: int) -> int:
        """A descriptor for the dumps of that slot's process, to be opened by itself. Raises OSError."""
        path = f"/proc/self/fd/{self._descriptor}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.lseek(descriptor, slot * _REGION_BYTES, os.SEEK_SET)
        return descriptor

    def read(self, slot: int) -> str:
        """What was dumped in that slot since it was cleared; the stacks themselves."""
        text = self._bytes(slot).decode("utf-8", "replace")
        return "\n".join(line for line in text.splitlines() if not line.startswith(_NOT_OF_THE_STACK)).strip()

    def clear(self, slot: int) -> None:
        """Clear the region of that slot for the next process that gets it."""
        if data := self._bytes(slot):
            os.pwrite(self._descriptor, bytes(len(data)), slot * _REGION_BYTES)

    def _bytes(self, slot: int) -> bytes:
        return os.pread(self._descriptor, _REGION_BYTES, slot * _REGION_BYTES).partition(b"\0")[0]


def dump_to(descriptor: int) -> None:
    """Have stacks be dumped there from now on. For a fork of the main thread of a process that has called `enable`."""
    faulthandler.enable(descriptor)


def enable(descriptor: int = 2) -> None:
    """Have fatal signals, ABRT among them, dump all Python stacks there. For the main thread, once a process.

    The stack has room for every signal at once (each is blocked in its own handler); pages that no signal has come to
    cost nothing. Raises OSError.
    """
    global _stack
    faulthandler.enable(descriptor)
    frame = (_libc.getauxval(c_ulong(_AT_MINSIGSTKSZ)) or _OLDEST_MINSIGSTKSZ) + _HANDLER_BYTES
    size = -(-frame * len(signal.valid_signals()) // mmap.PAGESIZE) * mmap.PAGESIZE
    if _stack is None:
        _stack = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    wanted = _Stack(addressof(c_char.from_buffer(_stack)), 0, size)
    if _libc.sigaltstack(byref(wanted), None):
        code = get_errno()
        raise OSError(code, f"sigaltstack: {os.strerror(code)}")
