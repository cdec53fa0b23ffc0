"""Planted bugs of what handlers send: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from maildefer.errors import StorageFault
from maildefer.maildir.names import unique_of


def published_first(old: Any) -> Any:
    """Seen before it is committed."""

    def commit(self: Any, claim: Any) -> None:
        with suppress(StorageFault):
            self.publish()
        old(self, claim)

    return commit


def published_unsynced(old: Any) -> Any:
    """The entry is acked before what was published is on the disk."""

    def publish(self: Any) -> None:
        for own, pusher in self._pushers.values():
            with suppress(OSError):
                pusher.placer.move_all(self._drafts.get(own, ()))

    return publish


def discarded_in_doubt(old: Any) -> Any:
    """Removed after its commit was sent, whose reply was lost."""

    def discard(self: Any) -> None:
        self.is_sent = False
        old(self)

    return discard


def doubt_for_done(old: Any) -> Any:
    """A commit whose reply is doubtful, or that was refused, is taken for one."""

    def commit(claim: Any, token: str) -> None:
        with suppress(StorageFault):
            old(claim, token)

    return commit


def one_queue_only(old: Any) -> Any:
    """Whoever finds a committed entry looks for what it has sent in one queue."""

    def drafts_in(layout: Any, token: str, system: Any) -> list[tuple[str, str]]:
        return old(layout, token, system) if layout.path == "/q" else []

    return drafts_in


def unsynced(old: Any) -> Any:
    """In the place of the module that syncs: it does not."""
    return SimpleNamespace(**{**vars(old), "sync_directory": lambda path, *, system: None})


def handled_again(old: Any) -> Any:
    """A committed entry is handled like any other."""

    def is_finished(self: Any, claim: Any) -> bool:
        return False

    return is_finished


def taken_back_unseen(old: Any) -> Any:
    """Discarded for a claim that was to be taken back, also where it was committed before that."""

    def reclaim_claim(self: Any, name: str, **facts: Any) -> None:
        self._ended.add(unique_of(name))
        old(self, name, **facts)

    return reclaim_claim


def never_synced(old: Any) -> Any:
    """Committed before it is on the disk."""

    def sync(self: Any) -> None:
        pass

    return sync
