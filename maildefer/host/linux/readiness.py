"""Waiting for one descriptor by poll(2): select(2) takes none above 1,023, and a worker may have more."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike


def await_readable(descriptor: FileDescriptorLike, seconds: float | None = None) -> bool:
    """Whether a read finds data or a closed end within the time; None waits for ever. Any thread."""
    return _await(descriptor, select.POLLIN, seconds)


def await_writable(descriptor: FileDescriptorLike, seconds: float | None = None) -> bool:
    """Whether a write finds room or a closed end within the time; None waits for ever. Any thread."""
    return _await(descriptor, select.POLLOUT, seconds)


def _await(descriptor: FileDescriptorLike, what: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, what)
    return bool(poll.poll(None if seconds is None else max(seconds, 0.0) * 1000))
