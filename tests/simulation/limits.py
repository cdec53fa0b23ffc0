"""Limits of handlers: never more at a time, or in a period, whatever is lost, late or dead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from maildefer.handling.limits.limit import Limit, LimitUse
from tests.simulation.name_cache import owner_in
from tests.simulation.scheduler import Process
from tests.simulation.world import short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

AT_A_TIME: Final = LimitUse(Limit(1), "m.one")
RATE: Final = LimitUse(Limit(2, 6.0), "m.two")
_CLOCK_SECONDS: Final = 1.0  # keepers know the mount's time to within a second


@dataclass(slots=True)
class LimitedHandlers:
    oracle: Oracle
    running: dict[int, tuple[LimitUse, ...]] = field(default_factory=dict)  # by pid
    starts: dict[LimitUse, list[float]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)  # keys of entries that may be promoted before they are due

    def begins(self, process: Process, uses: Sequence[LimitUse], claimed: str) -> None:
        """A handler starts, under these limits; one that lost its lease is told, and killed, in a moment."""
        oracle, now = self.oracle, self.oracle.world.mount_time
        self.running[process.pid] = tuple(uses)
        for use in uses:
            period = use.limit.period_seconds
            if period is None:
                at_home = claimed.startswith(f"{oracle.layouts[0].path}/") and oracle.is_live(claimed)
                if at_home and not self._is_live(process.pid):
                    oracle.fail("limit", f"{process.name} runs without a slot: {short(claimed)}")
                living = [pid for pid, held in self.running.items() if use in held and self._is_live(pid)]
                if len(living) > use.limit.count:
                    oracle.fail("limit", f"{len(living)} run at a time, with a limit of {use.limit.count}")
                continue
            starts = self.starts.setdefault(use, [])
            starts.append(now)
            if sum(1 for start in starts if start > now - period + _CLOCK_SECONDS) > use.limit.count:
                oracle.fail(
                    "limit", f"more than {use.limit.count} have started in {period:g} s: {starts[-3:]}"
                )

    def _is_live(self, pid: int) -> bool:
        """Whether it lives, and has a slot under a live lease."""
        folder = self.oracle.world.server.directories.get(f"{self.oracle.layouts[0].limits}/held")
        return self.oracle.processes[pid].alive and any(
            owner.pid == pid and self.oracle.is_live(f"{self.oracle.layouts[0].limits}/held/{name}")
            for name in (folder.names if folder else ())
            if (owner := owner_in(name)) is not None
        )
