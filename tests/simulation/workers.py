"""Workers of a simulated host: the real loop, with handlers that end in everything a handler can end in."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from maildefer.errors import ClaimLost
from maildefer.handling.retry import RetryPolicy
from maildefer.host.working_directory import WorkingDirectory
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import create_queue
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.attempt import ReadMessage
from maildefer.pool.worker.conversation_locks import ConversationLocks
from maildefer.pool.worker.limits.worker_limits import WorkerLimits
from maildefer.pool.worker.queue_view import QueueView
from maildefer.pool.worker.settle import Settler
from maildefer.pool.worker.worker import Worker
from tests.simulation.handlers import Handlers
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import WaitedOffers

if TYPE_CHECKING:
    from tests.simulation.supervisors import SimulatedSupervisor

_TIMEOUT_NS = 9_000_000_000
POLICY = RetryPolicy(max_attempts=8, first_seconds=0.5, cap_seconds=3)


class WatchedSlot(ScoreboardSlot):
    """A process's places on the board, and the same for the oracle: claims by name, tokens by SEQ."""

    __slots__ = ("process", "oracle", "claim", "current", "paths", "_names")

    def __init__(self, board: Scoreboard, slot: int, process: Process, oracle: Oracle) -> None:
        super().__init__(board, slot)
        self.process = process
        self.oracle = oracle
        self.current = ""
        self.claim: Any = None
        self._names: dict[int, str | int] = {}
        self.paths: dict[str, str] = {}  # of gathered claims, by key
        oracle.held[process.pid] = set()
        oracle.outputs.slots.setdefault(process.pid, []).append(self._names)

    def take_place(self, seq: int, name: str) -> int:
        place = super().take_place(seq, name)
        self._names[place] = name
        self.oracle.held[self.process.pid].add(name)
        return place

    def take_unnamed_place(self, seq: int) -> int:
        place = super().take_unnamed_place(seq)
        self._names[place] = seq
        self.oracle.held[self.process.pid].add(seq)
        return place

    def free_place(self, place: int) -> None:
        super().free_place(place)
        self.oracle.held[self.process.pid].discard(self._names.pop(place))


class WatchedClaim(Claim):
    """A claim that tells the oracle what its holder believes."""

    __slots__ = ()

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        slots: Any = self._claimer.slots
        slots.current, slots.claim = f"{self._claimer.layout.cur}/{self.name}", self

    def ack(self, **more: Any) -> None:
        self._told(lambda: super(WatchedClaim, self).ack(**more))

    def _move(self, *where: Any, **more: Any) -> Any:
        return self._told(lambda: super(WatchedClaim, self)._move(*where, **more))

    def abandon(self) -> None:
        super().abandon()
        slots: Any = self._claimer.slots
        slots.oracle.ended(slots.process)

    def _told(self, settle: Any) -> Any:
        slots: Any = self._claimer.slots
        claimed = f"{self._claimer.layout.cur}/{self.name}"
        try:
            result = settle()
        except ClaimLost:
            slots.oracle.reports_lost(slots.process, claimed)
            raise
        slots.oracle.reports_settled(slots.process, claimed)
        return result


class _Lines:
    def add(self, *facts: object, **more: object) -> None:
        pass

    def flush(self) -> None:
        pass


class SimulatedWorker(Worker):
    """Signals, offers and the log are stand-ins; offers are taken, handled and settled by the real code."""

    def __init__(self, supervisor: SimulatedSupervisor, slot: int, process: Process) -> None:
        board: Scoreboard = supervisor.board
        self._process = process
        self._bell = supervisor.bell
        self._shared = supervisor.shared
        self._words = board.words
        self._base = board.slot(slot)
        self._forked = self._stopping = False
        self.directory = WorkingDirectory()
        slots = self._slot = WatchedSlot(board, slot, process, supervisor.oracle)
        self._offers = WaitedOffers(supervisor.channels, supervisor.bell)
        self._queues = [self._serving(supervisor, index) for index in range(len(self._shared.queues))]
        home = self._queues[0]
        system = process.client.system
        tokens = ConversationLocks(home, board, slot, slots, self._offers.is_any, system=system)
        self._conversations = tokens
        limits = WorkerLimits(
            home,
            board,
            slot,
            slots,
            self._report_released,
            draw=supervisor.world.scheduler.random.uniform,
            system=system,
        )
        handlers: Any = [
            self._handlers_for(supervisor, slots, tokens, limits, queue.name) for queue in self._shared.queues
        ]
        self._settler = Settler(
            policy=POLICY,
            layouts={queue.name: queue.layout for queue in self._shared.queues},
            host=self._shared.host.label,
            is_ending=lambda: self._stopping,
            random=supervisor.world.scheduler.random.random,
            deferred=self._report_deferred,
            open_queue=lambda path: create_queue(path, system=system),
        )
        lines: Any = _Lines()
        self._log = lines
        self._limit_bytes = 1 << 20
        self._timeout_ns = _TIMEOUT_NS
        self._attempts_left = -1
        self._attempts = [
            self._attempts_at(queue, dispatcher)
            for queue, dispatcher in zip(self._queues, handlers, strict=True)
        ]
        outboxes = Outboxes(lambda: supervisor.host.layouts, system=system)
        for attempts in self._attempts:
            attempts.keeps_outputs = supervisor.world.fault_rates.outputs
            attempts.outboxes = lambda: outboxes

    def note_stop(self) -> None:
        """TERM, which also ends a wait for offers."""
        self._process.stopping = True
        self._note_stop(signal.SIGTERM, None)
        self._bell.rouse(self._process.threads)

    def _handlers_for(self, *facts: Any) -> Handlers:
        return Handlers(*facts)

    def _serving(self, supervisor: SimulatedSupervisor, index: int) -> QueueView:
        queue, label = supervisor.shared.queues[index], supervisor.shared.host.label
        serving = QueueView(queue.name, queue.layout, index, supervisor.board, self._slot, label)
        serving.claimer = Claimer(
            queue.layout,
            self._slot,
            lease="",
            host=label,
            mount_time=serving._mount_time,
            may_claim=serving.may_claim,
            kind=WatchedClaim,
            system=self._process.client.system,
        )
        return serving

    def _attempt(self, queue: QueueView, name: str, read: ReadMessage) -> None:
        super()._attempt(queue, name, read)
        slots: Any = self._slot
        slots.oracle.ended(slots.process)

    def _handle_signals(self) -> None:
        pass
