"""Hosts of a simulated pool: one machine each, with a supervisor and its children, and a pusher."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from greenlet import GreenletExit

from maildefer.errors import MaildeferError, QueueMissing
from maildefer.maildir import scan
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.idempotency.once import OncePusher
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.rights.modes import PLAIN
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.consumers import SimulatedConsumer
from tests.simulation.keyed_requests import RECIPIENTS, data_of
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.supervisors import SimulatedSupervisor
from tests.simulation.transitions import LATEST_PUSH_SECONDS
from tests.simulation.world import World

_UNIQUE_CHANCE = 0.85
_REQUESTS_CHANCE = 0.8
_OTHERS_CHANCE = 0.15
_TOGETHER_CHANCE = 0.7


class SimulatedHost:
    """One machine, which may lose power and come back."""

    pids = count(100)

    def __init__(self, world: World, oracle: Oracle, layouts: list[Layout], number: int) -> None:
        random = world.scheduler.random
        self.world = world
        self.oracle = oracle
        self.layouts = layouts
        self.label = f"{'abc'[number % 3]}-{number:06}"
        self.calm = False
        self.pace = world.fault_rates.pace
        self.to_push: list[bytes] = []
        self._boots = 0
        self._guests: list[Process] = []  # programs beside the pool
        self.consumers: list[SimulatedConsumer] = []
        self.cache = Cache(
            skew=random.choice((0.0, random.uniform(-90, 90))),
            uptime=random.uniform(10, 1e5),
            drift=1 + random.uniform(-5e-4, 5e-4),
        )
        self.pusher = Process("nobody", 0, alive=False)
        self.start(reboot=True)

    @property
    def alive(self) -> bool:
        return self.supervisor.process.alive

    def start(self, *, reboot: bool) -> None:
        """A supervisor starts; with `reboot`, on a machine that has just booted."""
        self._boots += reboot
        self.cache.boots = self._boots
        self.supervisor = SimulatedSupervisor(self, f"{self.label}.{self._boots}")
        self.start_pusher()

    def start_pusher(self) -> None:
        if not self.pusher.alive:
            self.pusher = self.process("pusher", None)
            self.world.scheduler.start(self.pusher, "push", self._push_all)

    def process(self, kind: str, family: Process | None) -> Process:
        pid = next(self.pids)
        process = Process(f"{self.label[0]}.{kind}{pid}", pid, family)
        process.client = self.client_of(process)
        self.oracle.processes[pid] = process
        if kind in ("popper", "operator", "planner", "consumer"):
            self.add_guest(process)
        if kind == "planner":
            self.oracle.planners.add(pid)
        return process

    def client_of(self, process: Process) -> Client:
        return Client(self.world, process, self.cache)

    def add_guest(self, process: Process) -> None:
        """It ends with the machine."""
        self._guests.append(process)

    def processes(self) -> list[Process]:
        return [*self.supervisor.processes(), self.supervisor.process, self.pusher]

    def die(self) -> None:
        """Everything ends."""
        self.end_supervisor()
        for process in (self.pusher, *self._guests):
            self.end(process)
        self._guests.clear()

    def end_supervisor(self) -> None:
        """All its children end with it."""
        supervisor = self.supervisor
        supervisor.process.alive = False
        for process in supervisor.processes():
            if process.alive:
                self.end(process)
        self.end(supervisor.process)
        supervisor.workforce.processes.clear()
        self.cache.watched.clear()

    def end(self, process: Process) -> None:
        """What it had sent may still arrive."""
        world = self.world
        for thread in process.threads:
            if thread.sending is not None and not world.fault_rates.local and world.chance(0.7):
                world.carry_out_late(thread.sending, world.a_while())
        world.note(process.name, "dies")
        self.oracle.dies(process)
        memory = self.supervisor.board._memory
        before = memory[:]
        world.scheduler.kill(process)
        self.supervisor.locks.end(process.pid)
        # `finally` clauses, which a killed process does not have, may have written to the board.
        memory[:] = before

    def _push_all(self) -> None:
        random, client = self.world.scheduler.random, self.pusher.client
        pusher = Pusher(self.layouts[0], host=self.label, system=client.system)
        if self.world.fault_rates.shared and random.random() < 0.5:  # the front end's own user
            pusher.placer._known_rights = replace(PLAIN, only_puts_in=True)
        markers = Markers(self.layouts[0], host=self.label, system=client.system)
        unique = self.world.fault_rates.unique
        once = OncePusher(pusher, system=client.system)
        while self.to_push:
            if self.world.fault_rates.requests and random.random() < _REQUESTS_CHANCE:
                if self._ask(pusher, once):
                    self.to_push.pop()
                client.sleep(random.expovariate(1 / self.pace))
                continue
            if self.world.fault_rates.together and random.random() < _TOGETHER_CHANCE:
                self._push_together(pusher)
                client.sleep(random.expovariate(1 / self.pace))
                continue
            data, since = self.to_push[-1], self.world.now
            wanted, pid = self.oracle.wanted, self.pusher.pid
            wanted.pop(pid, None)
            try:
                due = None
                if self.world.fault_rates.later and random.random() < self.world.fault_rates.later:
                    after = random.uniform(0.1, LATEST_PUSH_SECONDS)
                    wanted[pid] = self.world.mount_time + after
                    due = pusher.due(after=after)
                priority = (
                    random.choice(list(scan.PRIORITIES)) if self.world.fault_rates.priorities else "normal"
                )
                planned = Planned(
                    compose=lambda stem, data=data: [data],  # type: ignore[misc]
                    due=due,
                    priority=priority,
                )
                if unique and random.random() < _UNIQUE_CHANCE:
                    marked = markers.push(f"name-{random.randrange(unique)}", planned)
                    if not marked.is_new:
                        self.oracle.uniqueness.found(marked.key, since)
                        self.oracle.recorded(marked.key)
                        self.to_push.pop()
                        client.sleep(random.expovariate(1 / self.pace))
                        continue
                    key = marked.key
                else:
                    key = pusher.push(planned)
            except GreenletExit:
                raise
            except QueueMissing as fault:
                self.oracle.fail(
                    "push", f"{self.pusher.name} does not find the queue, which is there: {fault}"
                )
            except MaildeferError as fault:
                self.world.note(self.pusher.name, f"could not push: {type(fault).__name__}")
                client.sleep(1)
                continue
            self.to_push.pop()
            self.oracle.acknowledged(key, data)
            client.sleep(random.expovariate(1 / self.pace))

    def _push_together(self, pusher: Pusher) -> None:
        """Push several with one sync of their folder; what was refused of them is pushed again."""
        self.oracle.wanted.pop(self.pusher.pid, None)
        several = self.to_push[-self.world.fault_rates.together :]
        planned = [Planned(compose=lambda stem, data=data: [data]) for data in several]  # type: ignore[misc]
        for data, result in zip(several, pusher.push_all(planned), strict=True):
            if isinstance(result, str):
                self.to_push.remove(data)
                self.oracle.acknowledged(result, data)
            else:
                self.world.note(self.pusher.name, f"could not push: {type(result).__name__}")

    def _ask(self, pusher: Pusher, once: OncePusher) -> bool:
        """Make one of the requests, as a client does whose answer was lost; whether it has an answer."""
        random = self.world.scheduler.random
        number, fingerprint = (
            random.randrange(self.world.fault_rates.requests),
            int(random.random() < _OTHERS_CHANCE),
        )
        self.oracle.wanted.pop(self.pusher.pid, None)

        def write() -> list[Draft]:
            drafts = []
            for recipient in range(RECIPIENTS):
                drafts.append(draft := pusher.draft())
                draft.append(data_of(number, fingerprint, recipient))
                draft.sync()
            return drafts

        try:
            answer = once.push(f"{number:032x}", f"{fingerprint:032x}", write)
        except MaildeferError as fault:
            self.world.note(self.pusher.name, f"has no answer: {type(fault).__name__}")
            return False
        keys = [key for _, key in answer.entries]
        self.oracle.keyed.answered(number, fingerprint, int(answer.fingerprint), keys)
        return True
