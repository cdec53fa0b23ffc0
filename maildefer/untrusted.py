"""Reads small files of untrusted content, within limits.

A queue's control files and pid files are in folders where a broken front end, or a member of the queue's group, may
write; and commands that root runs read them.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol

LIMIT_BYTES: Final = 1 << 16
_DEEPEST: Final = 16  # levels of lists and objects; records of maildefer have six
_LONGEST_NUMBER: Final = 20  # digits and sign of a number of 64 bits
# O_NONBLOCK: a fifo must not hold the reader.
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Of open(2): a link, a socket, a device.
_NO_FILES: Final = frozenset((errno.ELOOP, errno.ENXIO, errno.ENODEV))


class UntrustedRecord(ValueError):
    """The content is no record of maildefer; the text says why."""


class Files(Protocol):
    """The functions of `os`, or of a substitute, that reading needs."""

    @property
    def open(self) -> Callable[..., int]: ...
    @property
    def fstat(self) -> Callable[[int], os.stat_result]: ...
    @property
    def read(self) -> Callable[[int, int], bytes]: ...
    @property
    def close(self) -> Callable[[int], None]: ...


def read_plain(
    path: str, *, limit_bytes: int = LIMIT_BYTES, files: Files = os
) -> tuple[bytes, os.stat_result]:
    """The bytes of a small plain file, and its status. Raises OSError; UntrustedRecord for anything else."""
    descriptor, facts = open_plain(path, files=files)
    try:
        if facts.st_size > limit_bytes:
            raise UntrustedRecord(f"has {facts.st_size} bytes, and may have {limit_bytes}")
        return files.read(descriptor, limit_bytes), facts
    finally:
        files.close(descriptor)


def open_plain(path: str, *, files: Files = os) -> tuple[int, os.stat_result]:
    """The descriptor of a plain file, to be closed by the caller. Raises OSError; UntrustedRecord for anything else."""
    try:
        descriptor = files.open(path, _FLAGS)
    except OSError as fault:
        if fault.errno in _NO_FILES:
            raise UntrustedRecord("is not a plain file") from fault
        raise
    try:
        facts = files.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise UntrustedRecord("is not a plain file")
    except BaseException:
        files.close(descriptor)
        raise
    return descriptor, facts


def read_record(path: str, *, limit_bytes: int = LIMIT_BYTES, files: Files = os) -> dict[str, object]:
    """The JSON object in a small plain file. Raises OSError, UntrustedRecord."""
    return record_in(read_plain(path, limit_bytes=limit_bytes, files=files)[0])


def record_in(data: bytes) -> dict[str, object]:
    """The JSON object in these bytes. Raises UntrustedRecord."""
    found = value_in(data)
    if not isinstance(found, dict):
        raise UntrustedRecord("is no JSON object")
    return found


def value_in(data: bytes) -> object:
    """The value of JSON in these bytes, neither nested deeply nor with a number of more than 64 bits.

    So it can be printed, copied and used in arithmetic. Raises UntrustedRecord.
    """
    try:
        found = json.loads(data, parse_int=_integer, parse_float=_float, parse_constant=_refused)
    except RecursionError:
        raise UntrustedRecord("is nested too deeply") from None
    except ValueError as fault:
        raise (
            fault if isinstance(fault, UntrustedRecord) else UntrustedRecord(f"is no JSON: {fault}")
        ) from None
    _must_be_flat(found)
    result: object = found
    return result


def number(value: object) -> float:
    """A number of a record; 0 for anything else in its place."""
    return float(value) if isinstance(value, int | float) else 0.0


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list in a record; none where something else is in its place."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _must_be_flat(found: object) -> None:
    level: list[object] = [found]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        if not inner:
            return
        level = inner
    if any(isinstance(one, dict | list) for one in level):
        raise UntrustedRecord("is nested too deeply")


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER or not -(1 << 63) <= (value := int(text)) < 1 << 64:
        raise UntrustedRecord(f"holds a number of {len(text)} digits")
    return value


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise UntrustedRecord("holds a number that is too large")
    return value


def _refused(text: str) -> NoReturn:
    raise UntrustedRecord(f"holds {text}")
