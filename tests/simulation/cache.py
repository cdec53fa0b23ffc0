"""What one host has cached, and the shapes in which answers come."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from tests.simulation.server import Directory, File

_NEGATIVE_SECONDS = 30.0


@dataclass(slots=True)
class Cache:
    """What one host has cached of directories, by path; shared by its processes."""

    listings: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, dict[str, float]] = field(default_factory=dict)
    partitioned_until: float = 0.0
    skew: float = 0.0  # of the wall clock
    uptime: float = 0.0  # of the boot clock, at the schedule's start
    drift: float = 1.0
    boots: int = 0  # of the host
    watched: dict[str, Callable[[str], None]] = field(default_factory=dict)  # by directory: inotify
    handles: dict[str, Directory] = field(default_factory=dict)  # of folders of entries

    next_request: Callable[[], object] | None = None  # what happens to the host in the middle of it

    def arrived(self, path: str) -> None:
        """One of this host's processes has put something there."""
        if self.watched:
            folder, _, name = path.rpartition("/")
            if (heard := self.watched.get(folder)) is not None:
                heard(name)

    def changed(self, path: str) -> None:
        """A directory, by one of this host's processes."""
        self.listings.pop(path, None)
        self.missing.pop(path, None)

    def note_missing(self, path: str, now: float) -> None:
        """It was looked up in vain."""
        parent, _, name = path.rpartition("/")
        self.missing.setdefault(parent, {})[name] = now

    def is_missing(self, path: str, now: float) -> bool:
        """Whether a look-up that was in vain answers still."""
        parent, _, name = path.rpartition("/")
        if (missing := self.missing.get(parent)) is None:
            return False
        since = missing.get(name)
        return since is not None and now - since < _NEGATIVE_SECONDS


def torn(before: list[str], after: dict[str, Any], random: Callable[[], float]) -> list[str]:
    """POSIX leaves open whether what came or went meanwhile is shown; so a renamed entry is so 0, 1 or 2 times."""
    seen = set(before)
    kept = [name for name in before if name in after or random() < 0.5]
    return kept + [name for name in after if name not in seen and random() < 0.5]


def facts_of(node: Any, mode: int = 0) -> os.stat_result:
    is_file = isinstance(node, File)
    facts: Any = SimpleNamespace(
        st_dev=0,
        st_mode=(stat.S_IFREG if is_file else stat.S_IFDIR) | mode,
        st_nlink=node.links if is_file else 2,
        st_size=len(node.data) if is_file else 4096,
        st_mtime=node.mtime,
        st_uid=os.geteuid(),
    )
    return facts  # type: ignore[no-any-return]
