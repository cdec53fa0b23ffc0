"""Workers of a simulated host: the real loop's body, with handlers that end in everything a handler can end in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maildefer.errors import ClaimLost
from maildefer.handling.outcomes import ACKED, Buried, Deferred, Outcome
from maildefer.handling.retry import RetryPolicy
from maildefer.maildir.claims import Claim, Claimer
from maildefer.pool.board import Board, Hand
from maildefer.pool.serving import Serving
from maildefer.pool.settle import Settler
from maildefer.pool.worker import Worker
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import WaitedOffers
from tests.simulation.world import TTL_SECONDS

if TYPE_CHECKING:
    from tests.simulation.hosts import SimulatedHost

POLICY = RetryPolicy(max_attempts=8, first_seconds=0.5, cap_seconds=3)


class WatchedHand(Hand):
    """A process's places on the board, and the same for the oracle."""

    __slots__ = ("process", "oracle", "current", "_names")

    def __init__(self, board: Board, slot: int, process: Process, oracle: Oracle) -> None:
        super().__init__(board, slot)
        self.process = process
        self.oracle = oracle
        self.current = ""
        self._names: dict[int, str] = {}
        oracle.held[process.pid] = set()

    def take(self, seq: int, name: str) -> int:
        place = super().take(seq, name)
        self._names[place] = name
        self.oracle.held[self.process.pid].add(name)
        return place

    def drop(self, place: int) -> None:
        super().drop(place)
        self.oracle.held[self.process.pid].discard(self._names.pop(place))


class WatchedClaim(Claim):
    """A claim that tells the oracle what its holder believes."""

    __slots__ = ()

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self._claimer.hand.current = self.name  # type: ignore[attr-defined]

    def ack(self, *, keep: bool = False) -> None:
        self._told(lambda: super(WatchedClaim, self).ack(keep=keep))

    def _move(self, *where: Any, **more: Any) -> None:
        self._told(lambda: super(WatchedClaim, self)._move(*where, **more))

    def abandon(self) -> None:
        super().abandon()
        hand: Any = self._claimer.hand
        hand.oracle.ended(hand.process)

    def _told(self, settle: Any) -> None:
        hand: Any = self._claimer.hand
        try:
            settle()
        except ClaimLost:
            hand.oracle.reports_lost(hand.process, self.name)
            raise
        hand.oracle.reports_settled(hand.process, self.name)


class Handlers:
    """In the place of a dispatcher."""

    def __init__(self, host: SimulatedHost, hand: WatchedHand) -> None:
        self._host = host
        self._hand = hand

    def dispatch(self, request: Any) -> tuple[Outcome, str]:
        world, hand = self._host.world, self._hand
        hand.oracle.begins(hand.process, hand.current, request.Data)
        world.note(hand.process.name, f"handles {hand.current}")
        random = world.scheduler.random
        seconds = random.expovariate(1 / world.weather.handling)
        if not self._host.calm and random.random() < 0.1:
            seconds = random.uniform(0, 2 * TTL_SECONDS)
        hand.process.client.sleep(seconds)
        outcome = self._outcome()
        hand.oracle.ends(hand.process, hand.current, type(outcome).__name__)
        return outcome, "handler"

    def _outcome(self) -> Outcome:
        random = self._host.world.scheduler.random
        draw = random.random() * (0.7 if self._host.calm else 1.0)
        if draw < 0.6:
            return ACKED
        if draw < 0.8:
            return Deferred("not now", after_seconds=random.uniform(0, 4))
        if draw < 0.93:
            return Deferred("failed", error="RuntimeError: failed", detail="Traceback")
        return Buried("never")

    def buried(self, message: object, outcome: Outcome) -> None:
        pass


class _Lines:
    def add(self, *facts: object, **more: object) -> None:
        pass

    def flush(self) -> None:
        pass


class SimulatedWorker(Worker):
    """The real loop, from offers to settles; signals and offers are stand-ins."""

    def __init__(self, host: SimulatedHost, slot: int, process: Process) -> None:
        board: Board = host.board
        self._shared = host.shared
        self._words = board.words
        self._base = board.slot(slot)
        self._forked = self._stopping = False
        self._hand = WatchedHand(board, slot, process, host.oracle)
        self._offers = WaitedOffers(host.channels, host.bell)
        self._queues = [self._serving(host, process, index) for index in range(len(host.shared.queues))]
        handlers: Any = Handlers(host, self._hand)
        self._dispatchers = [handlers for _ in self._queues]
        self._settler = Settler(
            policy=POLICY,
            layouts={queue.name: queue.layout for queue in host.shared.queues},
            host=host.label,
            random=host.world.scheduler.random.random,
            deferred=self._tell_keeper,
        )
        lines: Any = _Lines()
        self._log = lines
        self._limit_bytes = 1 << 20
        self._timeout_ns = 1 << 60
        self._left = -1

    def _serving(self, host: SimulatedHost, process: Process, index: int) -> Serving:
        queue = host.shared.queues[index]
        serving = Serving(queue.name, queue.layout, index, host.board, self._hand, host.label)
        serving.claimer = Claimer(
            queue.layout,
            self._hand,
            lease="",
            host=host.label,
            mount_time=serving._mount_time,
            kind=WatchedClaim,
            system=process.client.system,
        )
        return serving

    def _attempt(self, queue: Serving, name: str) -> None:
        super()._attempt(queue, name)
        hand: Any = self._hand
        hand.oracle.ended(hand.process)

    def _listen(self) -> None:
        pass
