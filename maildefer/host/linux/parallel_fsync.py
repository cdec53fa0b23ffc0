"""Syncing several files at the same time, by one thread: the kernel's asynchronous I/O (io_submit(2)).

They wait for one commit of the filesystem's journal together (decision 27). Not for a mount whose server may be gone:
the kernel's own threads do it, which no signal ends, and a process does not end before they have ended.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ctypes import (
    CDLL,
    Structure,
    addressof,
    byref,
    c_int16,
    c_int64,
    c_long,
    c_uint16,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
    get_errno,
    sizeof,
)
from errno import EINTR
from typing import Any, Final

_MOST: Final = 32  # files at a time in one context: as many as a push has open
_FSYNC: Final = 2  # IOCB_CMD_FSYNC of linux/aio_abi.h, since Linux 4.18
# io_setup, io_submit, io_getevents, which the C library does not wrap.
_NUMBERS: Final = {"x86_64": (206, 209, 208), "aarch64": (0, 2, 4), "riscv64": (0, 2, 4)}

_syscall = CDLL(None, use_errno=True).syscall
_syscall.restype = c_long


class _Request(Structure):
    """struct iocb; `key` and `flags` change places by the byte order, and are zero."""

    _fields_ = (
        ("data", c_uint64),
        ("key", c_uint32),
        ("flags", c_uint32),
        ("opcode", c_uint16),
        ("priority", c_int16),
        ("descriptor", c_uint32),
        ("buffer", c_uint64),
        ("size", c_uint64),
        ("offset", c_int64),
        ("reserved", c_uint64),
        ("more_flags", c_uint32),
        ("event_descriptor", c_uint32),
    )


class _Event(Structure):
    """struct io_event."""

    _fields_ = (("data", c_uint64), ("request", c_uint64), ("result", c_int64), ("second", c_int64))


class _Context:
    """A context of io_setup(2), for one thread at a time. Raises OSError where the kernel has no more."""

    def __init__(self, numbers: tuple[int, int, int]) -> None:
        setup, self._submit, self._collect = map(c_long, numbers)
        self._id = c_ulong(0)
        _called(setup, c_long(_MOST), byref(self._id))
        self._requests = (_Request * _MOST)()
        for index, request in enumerate(self._requests):
            request.data, request.opcode = index, _FSYNC
        self._addresses = (c_void_p * _MOST)(*map(addressof, self._requests))
        self._events = (_Event * _MOST)()

    def sync(self, descriptors: Sequence[int], faults: list[OSError | None]) -> int:
        """Sync the first files, and note their faults; returns how many were submitted to the kernel."""
        for index, descriptor in enumerate(descriptors):
            self._requests[index].descriptor = descriptor
        try:
            taken = _called(self._submit, self._id, c_long(len(descriptors)), self._addresses)
        except OSError:  # of the first: whoever tries it by itself learns why
            return 0
        left = taken
        while left:
            try:
                done = _called(self._collect, self._id, c_long(left), c_long(left), self._events, None)
            except OSError as fault:
                if fault.errno != EINTR:
                    raise
                continue
            for event in self._events[:done]:
                if event.result < 0:
                    faults[event.data] = OSError(-event.result, os.strerror(-event.result))
            left -= done
        return taken


_contexts: list[_Context] = []  # that nobody uses
os.register_at_fork(after_in_child=_contexts.clear)  # they are the parent's


def fsync_all(descriptors: Sequence[int]) -> list[OSError | None]:
    """Sync all files, and return when all is done: for each what fsync(2) would have raised. Any thread may call.

    One after the other where the kernel has no such thing, or has none left (`fs.aio-max-nr`).
    """
    faults: list[OSError | None] = [None] * len(descriptors)
    done = 0
    if 1 < len(descriptors) <= _MOST and (context := _context()) is not None:
        done = context.sync(descriptors, faults)
        _contexts.append(context)  # not where it was interrupted: answers may still come
    for index in range(done, len(descriptors)):
        try:
            os.fsync(descriptors[index])
        except OSError as fault:
            faults[index] = fault
    return faults


def _context() -> _Context | None:
    try:
        return _contexts.pop()
    except IndexError:
        pass
    numbers = _NUMBERS.get(os.uname().machine) if sizeof(c_void_p) == 8 else None
    if numbers is None:
        return None
    try:
        return _Context(numbers)
    except OSError:
        return None


def _called(number: c_long, *arguments: Any) -> int:
    result: int = _syscall(number, *arguments)
    if result < 0:
        code = get_errno()
        raise OSError(code, os.strerror(code))
    return result
