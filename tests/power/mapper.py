"""The kernel's recorder of block writes, dm-log-writes, set up by ioctl(2): no tool is needed.

What the ioctls take is in linux/dm-ioctl.h.
"""

from __future__ import annotations

import fcntl
import os
import struct
from types import TracebackType
from typing import Final

_HEAD: Final = struct.Struct("=3I2IIi2I4xQ128s129s7x")  # struct dm_ioctl
_TARGET: Final = struct.Struct("=2QiI16s")  # struct dm_target_spec
_CREATE, _REMOVE, _SUSPEND, _LOAD, _MESSAGE = 3, 4, 6, 9, 14
_SECTOR_BYTES: Final = 512


class Recorder:
    """A block device that passes everything on to `data` and writes down in `log` what was written, in which order."""

    def __init__(self, data: str, log: str, name: str = "recorder") -> None:
        self._name = name.encode()
        self._control = os.open("/dev/mapper/control", os.O_RDWR | os.O_CLOEXEC)
        number = self._ask(_CREATE)
        sectors = _size_of(data) // _SECTOR_BYTES
        parameters = f"{data} {log}".encode() + b"\0"
        parameters += bytes(-len(parameters) % 8)
        size = _TARGET.size + len(parameters)
        self._ask(_LOAD, _TARGET.pack(0, sectors, 0, size, b"log-writes") + parameters, targets=1)
        self._ask(_SUSPEND)  # without its flag: resume, which puts the loaded table to work
        self.path = f"/dev/dm-{os.minor(number)}"

    def mark(self, text: str) -> None:
        """Put a mark, without blanks, into the log, behind all that the device has confirmed; any thread."""
        self._ask(_MESSAGE, struct.pack("=Q", 0) + f"mark {text}".encode() + b"\0")

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ask(_REMOVE)
        os.close(self._control)

    def _ask(self, command: int, more: bytes = b"", targets: int = 0) -> int:
        size = _HEAD.size + len(more)
        head = _HEAD.pack(4, 0, 0, size, _HEAD.size, targets, 0, 0, 0, 0, self._name, b"")
        buffer = bytearray(head + more)
        request = 3 << 30 | _HEAD.size << 16 | 0xFD << 8 | command
        fcntl.ioctl(self._control, request, buffer)
        return int(_HEAD.unpack_from(buffer)[9])


def _size_of(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)
