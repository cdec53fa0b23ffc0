"""A simulated host's supervisor: workers, keeper and scout kept alive, ticks, the end of a pool."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from maildefer.host.identity import HostIdentity
from maildefer.maildir.layout import Format
from maildefer.pool.context import PoolContext, QueueOfPool
from maildefer.pool.messages import FromSupervisor, LeaseLost, from_keeper, send
from maildefer.pool.scoreboard import BATCH_CHANNELS, Header, ProcessKind, Scoreboard
from maildefer.pool.supervisor.drain import Drain
from tests.simulation.batches import PassingChannel
from tests.simulation.installed import act_as
from tests.simulation.keepers import SimulatedKeeper, SimulatedScout
from tests.simulation.scheduler import Process
from tests.simulation.stand_ins import Bell, Channel, Mailbox
from tests.simulation.workforces import SimulatedWorkforce
from tests.simulation.world import MAX_CRASHES
from tests.support.host_locks import HostLocks

if TYPE_CHECKING:
    from tests.simulation.hosts import SimulatedHost

_TICK_SECONDS = 2.0
_DRAIN_SECONDS = 4.0


class SimulatedSupervisor:
    """Its loop is written anew, for simulated time; the drain and the workers' bookkeeping in it are the real ones."""

    def __init__(self, host: SimulatedHost, boot_id: str) -> None:
        self.host = host
        self.world = host.world
        self.oracle = host.oracle
        scheduler, fault_rates = self.world.scheduler, self.world.fault_rates
        self.process = host.process("supervisor", None)
        self.process.family = self.process
        self.client = self.process.client
        self.board = board = Scoreboard(len(host.layouts), 2 * fault_rates.workers + 2)
        paths = [layout.path for layout in host.layouts]
        self.process.leases = lambda: {path: board.lease(index) for index, path in enumerate(paths)}
        self.bell, room = Bell(scheduler), Bell(scheduler)
        self.channels = [Channel(self.bell, room) for _ in host.layouts]
        settings: Any = SimpleNamespace(
            max_crashes=MAX_CRASHES,
            queues=dict.fromkeys(paths, ()),
            drain_seconds=_DRAIN_SECONDS,
            dead_retention={},
        )
        to_keeper: Any = Mailbox(lambda message: self.keeper.note_deferred(message))
        to_supervisor: Any = Mailbox(self._hear)
        deferred: Any = Mailbox(lambda message: self.keeper.hear_deferred(message))
        nobody: Any = None
        passing: Any = [PassingChannel(self.bell) for _ in range(BATCH_CHANNELS)]
        self.locks = HostLocks()
        self.shared = PoolContext(
            settings=settings,
            project="/",
            pidfile="",
            host=HostIdentity(label=host.label, boot_id=boot_id, pid_namespace="p"),
            queues=tuple(
                QueueOfPool(name=name, layout=layout)
                for name, layout in zip(paths, host.layouts, strict=True)
            ),
            board=board,
            offers=(),
            keeper=(to_keeper, to_supervisor),
            deferrals=(nobody, deferred),
            gathering=tuple((channel, channel) for channel in passing),
            not_paused=0,
            supervisor=self.process.pid,
        )
        self.draining = Drain(self.shared)
        self.workforce = SimulatedWorkforce(self)
        self.keeper_process = self.scout_process = Process("nobody", 0, alive=False)
        act_as(self.process)
        self._start_keeper()
        self._start_scout()
        for _ in range(fault_rates.workers):
            self.workforce.fork()
        scheduler.start(self.process, "tick", self._live)

    def child(self, kind: str) -> Process:
        return self.host.process(kind, self.process)

    def soon(self, seconds: float, action: Callable[[], object]) -> None:
        """Something that the supervisor does then, or as soon as it is not frozen any more, unless it is gone."""

        def act() -> None:
            if not self.process.alive:
                return
            if self.process.frozen_until > self.world.now:
                self.world.later(self.process.frozen_until - self.world.now, act)
            else:
                act_as(self.process)
                action()

        self.world.later(seconds, act)

    def _live(self) -> None:
        nobody: Any = _FrontEnds()
        while True:
            now = self.client.boottime()
            self.board.words[Header.TICK] = int(now * 1e9)
            self.workforce.enforce_deadlines(now)
            self.draining.enforce_limit(now, self.workforce, nobody)
            if self.draining.is_over(self.workforce, nobody, self):  # type: ignore[arg-type]
                return self.host.end_supervisor()
            self.client.sleep(min(_TICK_SECONDS, self.draining.seconds_left(now)))

    def drain(self) -> None:
        """TERM."""
        act_as(self.process)
        if self.draining.begin_drain("SIGTERM"):
            self.workforce.retire_all()

    def _hear(self, message: dict[str, Any]) -> None:
        match from_keeper(message):
            case LeaseLost(queue=index):
                delay = self.world.scheduler.random.uniform(0, 0.1)
                self.soon(delay, lambda: self.workforce.kill_holders(index))

    def send_to_keeper(self, order: FromSupervisor) -> None:
        send(self.shared.keeper[0], order)

    # Keeper and scout, of which the drain sees no more than this

    def has(self, kind: ProcessKind) -> bool:
        return (self.keeper_process if kind is ProcessKind.KEEPER else self.scout_process).alive

    def kill(self, *kinds: ProcessKind) -> None:
        for kind in kinds:
            process = self.keeper_process if kind is ProcessKind.KEEPER else self.scout_process
            if process.alive:
                self.host.end(process)

    def _start_keeper(self) -> None:
        if not self.has(ProcessKind.KEEPER) and self.draining.needs_keeper(self.workforce):
            self.keeper_process = self.child("keeper")
            # Before it has joined, it looks up from its work as seldom as by the default format.
            self.process.minded_from = self.world.now + Format().beat_seconds
            self.keeper = SimulatedKeeper(self, self.keeper_process)

    def _start_scout(self) -> None:
        if not self.has(ProcessKind.SCOUT) and not self.draining.has_begun:
            self.scout_process = self.child("scout")
            for index in range(len(self.shared.queues)):
                SimulatedScout(self, self.scout_process, index)

    def lose(self, kind: ProcessKind) -> None:
        """Keeper or scout is killed, or ends by itself; another follows."""
        self.kill(kind)
        start = self._start_keeper if kind is ProcessKind.KEEPER else self._start_scout
        self.soon(self.world.scheduler.random.uniform(0.05, 3), start)

    def processes(self) -> list[Process]:
        return [*self.workforce.processes.values(), self.keeper_process, self.scout_process]


class _FrontEnds:
    """None."""

    def __len__(self) -> int:
        return 0

    def kill_all(self) -> None:
        pass
