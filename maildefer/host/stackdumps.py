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
_libc = CDLL(None, use_errno=True)
_libc.getauxval.restype = c_ulong

_stack: mmap.mmap | None = None


class _Stack(Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("sp", c_void_p), ("flags", c_int), ("size", c_size_t))


_libc.sigaltstack.argtypes = (POINTER(_Stack), POINTER(_Stack))


def enable() -> None:
    """Have fatal signals, ABRT among them, dump all Python stacks to stderr. For the main thread, once a process.

    The stack has room for every signal at once (each is blocked in its own handler); pages that no signal has come to
    cost nothing. Raises OSError.
    """
    global _stack
    faulthandler.enable()
    frame = (_libc.getauxval(c_ulong(_AT_MINSIGSTKSZ)) or _OLDEST_MINSIGSTKSZ) + _HANDLER_BYTES
    size = -(-frame * len(signal.valid_signals()) // mmap.PAGESIZE) * mmap.PAGESIZE
    if _stack is None:
        _stack = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    wanted = _Stack(addressof(c_char.from_buffer(_stack)), 0, size)
    if _libc.sigaltstack(byref(wanted), None):
        code = get_errno()
        raise OSError(code, f"sigaltstack: {os.strerror(code)}")
