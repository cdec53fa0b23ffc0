"""Unique keys: of the entries of one key at most one has not ended, and a push that is refused names such a one (I12).

What counts is where an entry is: it has not ended while it waits, is claimed or is deferred, in the queue in which it
was pushed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from maildefer.maildir.markers.names import DRAFT, IN_KEY, hash_of, marker_path
from tests.simulation.name_cache import entry_in
from tests.simulation.world import TTL_SECONDS, Request

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

_SLACK_SECONDS: Final = 90.0  # for what was sent, and arrived late, and for a finder that was cut off
_GOING: Final = ("new", "cur", "later", "later/cur")


@dataclass(slots=True)
class Uniqueness:
    oracle: Oracle
    unended: dict[str, str] = field(default_factory=dict)  # by hash: the key of the entry
    # By key: when, and whether evidence is left.
    ended: dict[str, tuple[float, bool]] = field(default_factory=dict)

    def moved(self, request: Request) -> None:
        """The server has renamed or unlinked an entry."""
        (source, home, _), (destination, other, name) = map(
            self.oracle.place, (request.source, request.destination)
        )
        queue = self.oracle.layouts[0]
        begins = destination in _GOING and other is queue and home in (None, queue)
        was = source in _GOING and home is queue
        key = entry_in(name if begins else request.source.rpartition("/")[2]).key
        if IN_KEY not in key or begins == was:
            return
        if was:
            self._ends(key, has_evidence=destination == "" and bool(request.destination))
            return
        if request.source.endswith(DRAFT):
            self._must_be_durable(key)
        self._begins(key)

    def _begins(self, key: str) -> None:
        hashed = hash_in(key)
        other = self.unended.setdefault(hashed, key)
        if other != key:
            self.oracle.fail(
                "I12", f"two entries of one unique key: {other} has not ended, and {key} is there"
            )
        self.ended.pop(key, None)

    def _ends(self, key: str, *, has_evidence: bool) -> None:
        if self.unended.get(hash_in(key)) == key:
            del self.unended[hash_in(key)]
        self.ended[key] = self.oracle.world.now, has_evidence

    def _must_be_durable(self, key: str) -> None:
        path, server = marker_path(self.oracle.layouts[0], hash_in(key)), self.oracle.world.server
        if not server.keeps_order and not server.is_durable(path):
            self.oracle.fail("I12", f"an entry waits whose marker is not on the disk: {key}")

    def found(self, key: str, since: float) -> None:
        """A push that began at that time stored nothing, and was told of that entry."""
        history, now = self.oracle.histories.get(key), self.oracle.world.now
        if history is None:
            self.oracle.fail("I12", f"a push was told of an entry that never was: {key}")
        if key in self.unended.values():
            if key in self.oracle.unsynced:
                self.oracle.fail("I1", f"a push was told of an entry before its name is on the disk: {key}")
            history.acknowledged = True
            return
        when, has_evidence = self.ended[key]
        limit = when if has_evidence else when + TTL_SECONDS + _SLACK_SECONDS
        if since > limit:
            self.oracle.fail(
                "I12", f"a push was told of an entry that ended {now - when:.1f} s before: {key}"
            )

    def power_was_cut(self) -> None:
        """Entries may be where they were before, and so may markers, while the evidence beside them is gone."""
        now, directories = self.oracle.world.now, self.oracle.world.server.directories
        before, self.unended = self.unended, {}
        self.ended = dict.fromkeys((*self.ended, *before.values()), (now, False))
        for path, (folder, queue) in self.oracle.places.items():
            if folder in _GOING and queue is self.oracle.layouts[0]:
                for key in {entry_in(name).key for name in directories[path].names if IN_KEY in name}:
                    self._begins(key)


def hash_in(key: str) -> str:
    return key.partition(IN_KEY)[2][: len(hash_of("x"))]
