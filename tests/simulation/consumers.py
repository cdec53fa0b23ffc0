"""A program that consumes a queue without a supervisor: the real consumer, and a real keeper of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from maildefer.errors import ClaimLost, MaildeferError, StorageFault
from maildefer.host.identity import HostIdentity
from maildefer.maildir import scan
from maildefer.maildir.claims import Claimer
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.keeper.standalone import SLOTS
from maildefer.pool.receiver.consumer import ConsumedClaim, Consumer
from maildefer.pool.scoreboard import ProcessKind, Scoreboard, State
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView, SlotView
from maildefer.pool.worker.queue_view import QueueView
from tests.simulation.histories import FAILED
from tests.simulation.keepers import SimulatedKeeper
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Mailbox
from tests.simulation.workers import WatchedClaim, WatchedSlot
from tests.simulation.world import MAX_CRASHES

if TYPE_CHECKING:
    from tests.simulation.hosts import SimulatedHost

_CLOSES = 0.15  # of the claims, after which the program ends in good order
_RELEASES = 0.15  # of the claims, which it does not want after all


class WatchedConsumedClaim(WatchedClaim, ConsumedClaim):
    __slots__ = ()


class _Standalone:
    """In the place of a `StandaloneKeeper`, and of its process."""

    refused = trouble = ""

    def __init__(self, program: SimulatedConsumer, context: PoolContext) -> None:
        self._program = program
        self.context = context
        self.process: _Standalone | None = None

    def start(self) -> None:
        program, self.process = self._program, self
        process = program.keeper_process = program.host.process("keeper", program.process)
        program.host.add_guest(process)
        supervisor: Any = program
        program.keeper = SimulatedKeeper(supervisor, process)
        program.keeper.end_ticks()

    def receive_messages(self) -> None:
        """What it says is on the board."""

    def is_running(self) -> bool:
        return self._program.keeper_process.alive

    def wait(self, seconds: float = 10.0) -> None:
        client = self._program.process.client
        until = client.boottime() + seconds
        while self.is_running():
            if client.boottime() > until:
                raise subprocess.TimeoutExpired("keeper", seconds)
            client.sleep(0.1)

    def kill(self) -> None:
        self._program.lose(ProcessKind.KEEPER)


class SimulatedConsumer(Consumer):
    """One program on a host."""

    keeper: SimulatedKeeper

    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.world, self.oracle = host.world, host.oracle
        process = self.process = host.process("consumer", None)
        process.family = process
        layout, system = host.layouts[0], process.client.system
        board = Scoreboard(1, SLOTS)
        process.leases = lambda: {layout.path: board.lease(0)}
        # With `world` and `lose`, what a keeper asks a supervisor.
        context = self.shared = _context(self, board)
        self._layout, self._max_bytes, self._poll_seconds = layout, 1 << 20, 1.0
        standalone: Any = _Standalone(self, context)
        self._keeper = standalone
        self.keeper_process = Process("nobody", 0, alive=False)
        self._pid = os.getpid()
        HeaderView(board).used_slots = 1
        self._slot = SlotView(board, 0)
        self._slot.kind, self._slot.pid, self._slot.state = ProcessKind.WORKER, process.pid, State.BUSY
        self._board, self._record = board, QueueRecordView(board, 0)
        self._gathered_slots, self._most_claims = None, 32
        slots = WatchedSlot(board, 0, process, self.oracle)
        self._view = view = QueueView(layout.path, layout, 0, board, slots, host.label)
        view.claimer = Claimer(
            layout,
            slots,
            lease="",
            host=host.label,
            mount_time=view._mount_time,
            may_claim=view.may_claim,
            kind=WatchedConsumedClaim,
            system=system,
        )
        self._names: Iterator[str] = iter(())
        listing: Any = SimpleNamespace(
            names=lambda: (name for names in scan.chunks(layout.new, system=system) for name in names)
        )
        self._listing = listing
        watch: Any = SimpleNamespace(wait=process.client.sleep, close=lambda: None)
        self._watch = watch
        self._closed = False
        self.world.scheduler.start(process, "consume", self._consume)

    def lose(self, kind: ProcessKind) -> None:
        """The keeper is killed; the consumer starts another when it next looks."""
        if self.keeper_process.alive:
            memory = self._board._memory
            before = memory[:]
            self.host.end(self.keeper_process)
            memory[:] = before

    def die(self) -> None:
        """The program is killed, and its keeper ends with it."""
        for process in (self.process, self.keeper_process):
            if process.alive:
                self.host.end(process)

    # The program

    def _consume(self) -> None:
        random = self.world.scheduler.random
        try:
            with self:
                while self.host.calm or random.random() > _CLOSES:
                    if (claim := self.claim(None)) is not None:
                        self._handle(claim)
        except MaildeferError as fault:  # told to the program
            self.world.note(self.process.name, f"ends: {fault}")
        self.process.alive = False

    def _handle(self, claim: ConsumedClaim) -> None:
        random, client = self.world.scheduler.random, self.process.client
        settle: Callable[[], object] = claim.release
        claimed = f"{self._layout.cur}/{claim.name}"
        if random.random() > _RELEASES:
            self.oracle.begins(self.process, claimed, claim.data)
            client.sleep(random.expovariate(1 / self.world.fault_rates.handling))
            settle, outcome = self._settle_of(claim)
            self.oracle.ends(self.process, claimed, outcome)
        while True:
            try:
                settle()
                break
            except ClaimLost:
                break
            except StorageFault:  # it is held, and tried again
                client.sleep(0.3)
        self.oracle.ended(self.process)

    def _settle_of(self, claim: ConsumedClaim) -> tuple[Callable[[], object], str]:
        random = self.world.scheduler.random
        if (draw := random.random()) < 0.6:
            return claim.ack, "Acked"
        seconds, failed = random.uniform(0, 3), draw > 0.8
        return partial(claim.defer, seconds, failed=failed), FAILED if failed else "Deferred"


class _Box(Mailbox):
    def fileno(self) -> int:
        return -1  # nobody waits for it

    def close(self) -> None:
        pass


def _context(program: SimulatedConsumer, board: Scoreboard) -> PoolContext:
    host = program.host
    layout = host.layouts[0]
    settings: Any = SimpleNamespace(
        max_crashes=MAX_CRASHES, queues={layout.path: ()}, drain_seconds=0, dead_retention={}
    )
    to_keeper: Any = _Box(lambda message: program.keeper.note_deferred(message))
    to_program: Any = _Box(lambda message: None)
    deferred: Any = _Box(lambda message: program.keeper.hear_deferred(message))
    return PoolContext(
        settings=settings,
        project="/",
        pidfile="",
        host=HostIdentity(label=host.label, boot_id=host.supervisor.shared.host.boot_id, pid_namespace="p"),
        queues=(QueueOfPool(name=layout.path, layout=layout),),
        board=board,
        offers=(),
        keeper=(to_keeper, to_program),
        deferrals=(deferred, deferred),
        not_paused=0,
        supervisor=program.process.pid,
    )
