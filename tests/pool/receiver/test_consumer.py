"""A consumer's claims, as far as they need no keeper; see tests/test_queue.py for the rest."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer.errors import MountFault
from maildefer.maildir.layout import Layout
from maildefer.pool.receiver.consumer import Consumer


def test_a_listing_that_the_mount_refuses_is_a_fault_that_has_a_name() -> None:
    """A program, and a receiver, go on after `StorageFault`."""

    def refused() -> Iterator[str]:
        yield from ()
        raise OSError(errno.EIO, "Input/output error")

    consumer: Any = Consumer.__new__(Consumer)
    consumer._layout, consumer._names = Layout("/queue"), iter(())
    consumer._view = SimpleNamespace(may_claim=lambda: True)
    consumer._listing = SimpleNamespace(names=refused)
    with pytest.raises(MountFault, match="/queue/new"):
        consumer._next()
