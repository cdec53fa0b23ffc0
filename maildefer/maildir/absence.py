"""Why there is no queue at a path: nothing is there, or a link to nothing, or an empty folder."""

from __future__ import annotations

import stat
from collections.abc import Set
from contextlib import suppress
from typing import Final

from maildefer.errors import QueueMissing
from maildefer.maildir.system import System

MOUNT: Final = frozenset(("lost+found",))  # what an empty filesystem has


def missing(path: str, system: System) -> QueueMissing:
    """The error for a path at which a folder was not found."""
    with suppress(OSError):
        if stat.S_ISLNK(system.lstat(path).st_mode):
            return QueueMissing(path, "it is a link to what is not there: make that folder, or mount it")
    return QueueMissing(path)


def refuse_empty(path: str, present: Set[str]) -> None:
    """Raises QueueMissing. `tmp` is what a queue in the making has at first."""
    if present <= MOUNT | {"tmp"}:
        raise QueueMissing(path, "the folder is empty: name it in `queues` to have it made, or mount it")
