"""What the server does to leases: who beats, who is fenced, who may claim (I6, I8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from maildefer.maildir.layout import Format, Layout
from maildefer.maildir.names import split_beat
from tests.simulation.scheduler import Process
from tests.simulation.world import BEAT_SECONDS, LONGEST_RETRY_SECONDS, TTL_SECONDS, Request

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

_SLACK: Final = 0.05
# A silence of two intervals is a stall (see `LeaseObserver`), seen one interval and one slow request later at most.
_NOTICED_SECONDS: Final = 3 * BEAT_SECONDS + LONGEST_RETRY_SECONDS


@dataclass(slots=True)
class Believed:
    """What is known of one lease, from the server's side."""

    family: Process | None
    beaten: float  # when its name changed last
    sent: float  # when that beat was sent


@dataclass(slots=True)
class Beats:
    oracle: Oracle
    leases: dict[tuple[str, str], Believed] = field(default_factory=dict)  # by queue and name

    def is_live(self, queue: Layout, lease: str) -> bool:
        found = self.oracle.world.server.directories.get(queue.leases)
        return found is not None and any(name.rpartition(".")[0] == lease for name in found.names)

    def family(self, queue: Layout, lease: str) -> Process | None:
        believed = self.leases.get((queue.path, lease))
        return believed.family if believed else None

    def must_be_heard(self, request: Request, queue: Layout, lease: str) -> None:
        """A claim, or a token's, is not sent in silence (I8): what counts is when the last good beat was sent."""
        believed = self.leases.get((queue.path, lease))
        if believed and request.sent - believed.sent > TTL_SECONDS / 2 + _SLACK:
            silent = request.sent - believed.sent
            self.oracle.fail("I8", f"claim sent {silent:.2f} s after the last good beat: {request}")

    def must_be_led(self, request: Request) -> None:
        """A supervisor that is stopped is a frozen host: its keeper ends its workers after the TTL."""
        family, now = request.process.family, self.oracle.world.now
        if family is not None and family.frozen_until > now:
            alone = now - max(family.frozen_since, family.minded_from)
            # Until it has joined, it looks so seldom.
            if alone > TTL_SECONDS + Format().beat_seconds + _SLACK:
                self.oracle.fail(
                    "I8", f"claim sent {alone:.2f} s after its supervisor was stopped: {request}"
                )

    def joined(self, request: Request, queue: Layout, name: str) -> None:
        beat = split_beat(name)
        assert beat is not None
        now, family = self.oracle.world.now, request.process.family
        if family is not None and not any(family.leases().values()):
            # Only with its reply the keeper knows the TTL; its next look, as far off as before, begins to count.
            family.minded_from = max(family.minded_from, now + Format().beat_seconds)
        self.leases[queue.path, beat[0]] = Believed(family, now, request.sent)

    def beaten(self, request: Request, queue: Layout, name: str, new_name: str) -> None:
        before, after = split_beat(name), split_beat(new_name)
        assert before is not None
        believed = self.leases[queue.path, before[0]]
        if after != (before[0], before[1] + 1) or believed.family is not request.process.family:
            self.oracle.fail("I6", f"{request.process.name} renamed a lease: {request}")
        believed.beaten, believed.sent = self.oracle.world.now, request.sent

    def fenced(self, request: Request, queue: Layout, name: str) -> None:
        """A live pool's lease: only after the TTL in silence, and never by itself."""
        beat, oracle = split_beat(name), self.oracle
        assert beat is not None
        believed = self.leases[queue.path, beat[0]]
        family = believed.family
        if family is None or not family.alive:
            return
        if request.process.family is family and beat[0] == family.leases().get(queue.path):
            oracle.fail("I6", f"{request.process.name} fenced {name}, which is its own")
        silent = oracle.world.now - believed.beaten
        if silent < TTL_SECONDS - _SLACK:
            oracle.fail("I6", f"{request.process.name} fenced {name} after {silent:.2f} s")
        # Where the server was away for so long that one's own beat must have failed, one waits anew.
        for start, end in oracle.world.quiet:
            since, back = max(start, believed.beaten), request.sent - end
            lasted = min(end, request.sent) - since
            if lasted > _NOTICED_SECONDS and back < TTL_SECONDS - _SLACK:
                oracle.fail("I6", f"{request.process.name} fenced {name}, the server back for {back:.2f} s")

    def believes_fenced(self, lease: str, queues: list[Layout]) -> None:
        """An owner takes itself for fenced, in one of its queues."""
        if all(self.is_live(queue, lease) for queue in queues):
            self.oracle.fail("I6", f"an owner takes itself for fenced, and is not: {lease}")
