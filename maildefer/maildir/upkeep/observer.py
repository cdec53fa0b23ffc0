"""Watching the leases of other hosts by one's own clock, and telling which claims have no owner any more.

Clock differences between hosts don't matter: the observer measures for how long it saw a name unchanged, and only while
its own beats succeed (an NFSv4 server in its grace period lists but does not rename).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from maildefer.maildir import doubt
from maildefer.maildir.layout import Format, Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep import leases
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.leases import LeaseHolder

LONGEST_ALLOWANCE_SECONDS = 300.0


@dataclass(slots=True)
class WatchedLease:
    """A lease of another supervisor: its beat as last seen, and since when it is unchanged."""

    beat: int
    since: float
    holder: LeaseHolder | None
    has_beaten: bool = False  # since this observer first saw it


class LeaseObserver:
    """Watches the leases of one queue; one thread only.

    `known_dead(holder)` tells whether a holder of this very host is dead; it must be sure.
    """

    def __init__(
        self,
        layout: Layout,
        format: Format,
        own: Callable[[], str],
        known_dead: Callable[[LeaseHolder], bool],
        *,
        refusals: FailedMoves | None = None,
        system: System = SYSTEM,
    ) -> None:
        self._layout = layout
        self.format = format
        self._own = own
        self._known_dead = known_dead
        self._refusals = FailedMoves(system=system) if refusals is None else refusals
        self._system = confined_to(layout.path, system)
        self._watched: dict[str, WatchedLease] = {}
        self._allowed_silence_seconds = format.ttl_seconds
        self._allowance_until = 0.0
        self._stalled_since: float | None = None
        self._looked_at: float | None = None

    @property
    def others(self) -> list[str]:
        """The live leases of others, as the last look found them."""
        return sorted(self._watched)

    def beating(self) -> list[tuple[str, LeaseHolder]]:
        """The leases that certainly live, since this observer saw them beat, with their holders."""
        return [
            (lease, watched.holder)
            for lease, watched in self._watched.items()
            if watched.has_beaten and watched.holder is not None
        ]

    def look(self, last_good_beat: float) -> list[str]:
        """List the leases, and fence those that are silent or whose holder is known to be dead; returns these.

        `last_good_beat` is when our own last good beat was sent. Raises OSError when the listing fails; a lease that
        can't be fenced is tried again by itself.
        """
        system = self._system
        seen = doubt.live_leases(self._layout, system)
        now = system.boottime()
        self._note_own_stall(now, last_good_beat)
        own = self._own()
        for gone in self._watched.keys() - seen.keys():
            del self._watched[gone]
        fenced = []
        for lease, beat in seen.items():
            if lease == own:
                continue
            watched = self._watched.get(lease)
            if watched is None:
                watched = self._watched[lease] = WatchedLease(
                    beat, now, leases.read_holder(self._layout, lease, beat, system=system)
                )
            elif watched.beat != beat:
                if watched.holder is None or watched.beat > beat:
                    watched.holder = leases.read_holder(self._layout, lease, beat, system=system)
                watched.beat, watched.since, watched.has_beaten = beat, now, True
            if self._has_fallen_silent(lease, watched, now) and self._fence(lease, beat, now):
                del self._watched[lease]
                fenced.append(lease)
        self._refusals.keep(self._watched)
        return fenced

    def _fence(self, lease: str, beat: int, now: float) -> bool:
        if not self._refusals.may_try(lease):
            return False
        try:
            latest = now + self.format.beat_seconds
            is_ended = leases.fence(self._layout, lease, beat, latest=latest, system=self._system)
        except OSError as fault:
            self._refusals.note(lease, fault)
            return False
        self._refusals.forget(lease)
        return is_ended

    def _has_fallen_silent(self, lease: str, watched: WatchedLease, now: float) -> bool:
        if watched.holder is not None and self._known_dead(watched.holder):
            watched.holder = leases.read_holder(self._layout, lease, watched.beat, system=self._system)
            # Read again: another keeper may have taken it over meanwhile.
            if watched.holder is not None and self._known_dead(watched.holder):
                return True
        return now - watched.since >= self._allowed_silence_seconds and self._stalled_since is None

    def _note_own_stall(self, now: float, last_good_beat: float) -> None:
        """Count no silence while our own beats fail, nor after that for as long as they failed.

        The same applies if this observer has not looked for long: after a freeze its first beat may come before its
        first look, and the other hosts, frozen too or waiting for the same server, may be slower than both.
        """
        looked, self._looked_at = self._looked_at, now
        if looked is not None and now - looked > self.format.ttl_seconds / 2:
            self._stalled_since = looked if self._stalled_since is None else self._stalled_since
        if now - last_good_beat > 2 * self.format.beat_seconds:
            if self._stalled_since is None:
                self._stalled_since = last_good_beat
        elif self._stalled_since is not None:
            stall = now - self._stalled_since
            self._allowed_silence_seconds = max(
                self.format.ttl_seconds, min(stall, LONGEST_ALLOWANCE_SECONDS)
            )
            self._allowance_until = now + self._allowed_silence_seconds
            self._stalled_since = None
            for watched in self._watched.values():
                watched.since = now
        elif now > self._allowance_until:
            self._allowed_silence_seconds = self.format.ttl_seconds

    def abandoned(self, owners: Iterable[str]) -> set[str]:
        """Return which of these leases, all seen on claims before this call, are certainly gone (I6). Raises OSError.

        A lease is gone if two fresh listings lack it, with less than half a beat interval from the start of the first
        to the end of the second: at most one beat is made in that time, and it can hide a name from only one listing.
        """
        wanted = set(owners) - {self._own()}
        if not wanted:
            return set()
        began = self._system.boottime()
        missing = wanted - doubt.live_leases(self._layout, self._system).keys()
        if missing:
            missing -= doubt.live_leases(self._layout, self._system).keys()
        if self._system.boottime() - began >= self.format.beat_seconds / 2:
            return set()
        return missing
