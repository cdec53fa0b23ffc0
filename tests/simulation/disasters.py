"""What is done to the hosts of a schedule, each disaster at a time of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from maildefer.errors import MaildeferError
from maildefer.maildir import pop
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries, schedule
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.maildir.push import Pusher
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.upkeep import grown
from maildefer.pool.scoreboard import Header, ProcessKind
from tests.simulation import final
from tests.simulation.consumers import SimulatedConsumer
from tests.simulation.faults import FaultRates
from tests.simulation.histories import Violation
from tests.simulation.hosts import SimulatedHost
from tests.simulation.installed import act_as
from tests.simulation.name_cache import entry_in
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process
from tests.simulation.world import TTL_SECONDS, Request, World

_HOURS = 3 * 3600.0


@dataclass(slots=True)
class Disasters:
    """Planned once, when the hosts are there."""

    world: World
    oracle: Oracle
    layouts: list[Layout]
    hosts: list[SimulatedHost]
    frozen_until: float = 0.0  # the longest
    replaced: set[str] = field(default_factory=set)  # folders, by path, or they may yet be

    def plan(self, fault_rates: FaultRates) -> None:
        random, start = self.world.scheduler.random, self.world.now
        plans: list[tuple[int, Callable[[], object]]] = [
            (fault_rates.worker_deaths, self._kill_worker),
            (fault_rates.keeper_deaths, self._kill_keeper),
            (fault_rates.host_deaths, self._kill_host),
            (fault_rates.freezes, self._freeze),
            (fault_rates.partitions, self._partition),
            (fault_rates.restarts, self._restart_server),
            (fault_rates.power_cuts, self._cut_power),
            (fault_rates.readers, self._read_mail),
            (fault_rates.operators, self._requeue),
            (fault_rates.pops, self._pop),
            (fault_rates.scout_deaths, self._kill_scout),
            (fault_rates.supervisor_freezes, self._freeze_supervisor),
            (fault_rates.drains, self._drain),
            (fault_rates.pauses, self._pause),
            (fault_rates.clocks, self._set_clock),
            (fault_rates.cancels, self._cancel),
            (fault_rates.reschedules, self._reschedule),
            (fault_rates.pusher_deaths, self._kill_pusher),
            (fault_rates.consumers, self._start_consumer),
            (fault_rates.consumer_deaths, self._kill_consumer),
            (fault_rates.replacements, self._replace_folder),
        ]
        for times, disaster in plans:
            for _ in range(times):
                self.world.scheduler.at(start + random.uniform(0.5, fault_rates.seconds), disaster)

    def _any(self) -> SimulatedHost:
        return self.world.scheduler.random.choice(self.hosts)

    def _kill_worker(self, host: SimulatedHost | None = None) -> None:
        workforce = (host or self._any()).supervisor.workforce
        if workforce.processes:
            pid = self.world.scheduler.random.choice(sorted(workforce.processes))
            cause = self.world.scheduler.random.choice((signal.SIGKILL, signal.SIGSEGV))
            workforce.end(workforce.processes[pid], cause)

    def _kill_keeper(self) -> None:
        """And often a worker at the same time."""
        host = self._any()
        if self.world.scheduler.random.random() < 0.5:
            self._kill_worker(host)
        if host.alive:
            host.supervisor.lose(ProcessKind.KEEPER)

    def _kill_pusher(self) -> None:
        """Another follows."""
        host = self._any()
        if host.alive and host.pusher.alive:
            host.end(host.pusher)
            self.world.later(self.world.scheduler.random.uniform(0.01, 2), lambda: self._push_on(host))

    def _start_consumer(self) -> None:
        host = self._any()
        if host.alive:
            act_as(host.supervisor.process)
            host.consumers.append(SimulatedConsumer(host))

    def _kill_consumer(self) -> None:
        """The whole program, or its keeper alone."""
        living = [one for host in self.hosts for one in host.consumers if one.process.alive]
        if living:
            random = self.world.scheduler.random
            program = random.choice(living)
            program.die() if random.random() < 0.5 else program.lose(ProcessKind.KEEPER)

    def _push_on(self, host: SimulatedHost) -> None:
        if host.alive:
            host.start_pusher()

    def _replace_folder(self) -> None:
        """Replace a folder as a keeper does that finds it grown; it may be killed at it.

        Each folder is replaced once, since a fresh one takes very many entries to grow.
        """
        host, random = self._any(), self.world.scheduler.random
        layout = random.choice(self.layouts)
        path = random.choice((layout.new, layout.new, layout.later_new))
        if not host.alive or path in self.replaced:
            return
        process = host.process("replacer", None)
        host.add_guest(process)
        self.replaced.add(path)

        def replace() -> None:
            system, is_placed = process.client.system, True
            with suppress(OSError):  # then its rename may yet be carried out
                facts = system.lstat(path)
                is_placed = grown.replace_folder(layout, path, facts, system=confined_to(layout.path, system))
            if not is_placed:
                self.replaced.discard(path)

        self.world.scheduler.start(process, "replace", replace)
        if random.random() < 0.2:
            self.world.later(random.uniform(0, 0.1), lambda: process.alive and host.end(process))

    def _kill_scout(self) -> None:
        host = self._any()
        if host.alive:
            host.supervisor.lose(ProcessKind.SCOUT)

    def _drain(self) -> None:
        """Another supervisor follows."""
        host = self._any()
        if host.alive and not host.supervisor.draining.has_begun:
            host.supervisor.drain()
            self.world.note(host.label, "is told to stop")
            self.world.later(self.world.scheduler.random.uniform(1, 12), lambda: self._revive(host, False))

    def _pause(self) -> None:
        """Stop claiming, and go on."""
        words = self._any().supervisor.board.words
        words[Header.PAUSED] = 1

        def resume() -> None:
            words[Header.PAUSED] = 0

        self.world.later(self.world.scheduler.random.uniform(0.5, 4), resume)

    def _set_clock(self) -> None:
        """The wall clock of a host, by hours."""
        host = self._any()
        host.cache.skew += self.world.scheduler.random.choice((-_HOURS, _HOURS))
        self.world.note(host.label, f"its clock is set, and {host.cache.skew:g} s off")

    def _freeze_supervisor(self) -> None:
        self._frozen([self._any().supervisor.process])

    def _kill_host(self) -> None:
        """Often in the middle of a worker's request."""
        random = self.world.scheduler.random
        host = random.choice(self.hosts)
        doom = lambda: self._end_host(host)  # noqa: E731
        if random.random() < 0.7:
            host.cache.next_request = doom
            self.world.later(3, lambda: doom() if host.cache.next_request is doom else None)
        else:
            doom()

    def _end_host(self, host: SimulatedHost) -> None:
        random, host.cache.next_request = self.world.scheduler.random, None
        if host.alive:
            host.die()
            reboot = random.random() < 0.5
            self.world.later(random.uniform(0.1, 15), lambda: self._revive(host, reboot))

    def _revive(self, host: SimulatedHost, reboot: bool) -> None:
        if not host.alive:
            host.start(reboot=reboot)
        elif host.supervisor.draining.has_begun:
            self.world.later(1, lambda: self._revive(host, reboot))

    def _freeze(self) -> None:
        """A whole host, or one process of it."""
        random = self.world.scheduler.random
        host = random.choice(self.hosts)
        self._frozen(host.processes() if random.random() < 0.5 else [random.choice(host.processes())])

    def _frozen(self, frozen: list[Process]) -> None:
        until = self.world.now + self._absence()
        self.frozen_until = max(self.frozen_until, until)
        for process in frozen:
            process.frozen_since = (
                self.world.now if process.frozen_until <= self.world.now else process.frozen_since
            )
            process.frozen_until = until
            if process.family is not None and process.family is not process:
                process.family.minded_from = max(process.family.minded_from, until)
            self.world.note(process.name, f"frozen until {until:.1f}")

    def _absence(self) -> float:
        """Shorter or longer than the TTL, and often about as long."""
        random = self.world.scheduler.random
        return (
            random.uniform(0.1, 3 * TTL_SECONDS)
            if random.random() < 0.5
            else TTL_SECONDS + random.gauss(0, 0.7)
        )

    def _partition(self) -> None:
        random = self.world.scheduler.random
        host = random.choice(self.hosts)
        host.cache.partitioned_until = self.world.now + self._absence()
        self.world.note(host.label, f"partitioned until {host.cache.partitioned_until:.1f}")

    def _restart_server(self) -> None:
        """Replies under way are lost; then it lists for a while, but does not rename."""
        random, world = self.world.scheduler.random, self.world
        world.boots += 1
        world.down_until = world.now + random.uniform(0.1, 6)
        world.grace_until = world.down_until + random.choice((0.0, random.uniform(0, 8)))
        self.end_quiet()
        world.quiet.append((world.now, world.grace_until))
        world.note(
            "server", f"restarts, back at {world.down_until:.1f}, in grace until {world.grace_until:.1f}"
        )

    def end_quiet(self) -> None:
        quiet, now = self.world.quiet, self.world.now
        if quiet and quiet[-1][1] > now:
            quiet[-1] = (quiet[-1][0], now)

    def _cut_power(self) -> None:
        host = self.hosts[0]
        if host.alive:
            host.die()
            random = self.world.scheduler.random
            self.world.server.cut_power(random)
            final.power_was_cut(self.oracle)
            self.world.note("power", "cut")
            self.world.later(random.uniform(0.1, 3), lambda: self._revive(host, True))

    def _read_mail(self) -> None:
        """A mail reader opens the queue."""
        names = list(self.world.server.directories[self.layouts[0].new].names)
        if names:
            name = self.world.scheduler.random.choice(names)
            reader = self.oracle.processes.setdefault(2, Process("reader", 2))
            self.world.carry_out(
                Request(
                    "rename",
                    f"{self.layouts[0].new}/{name}",
                    f"{self.layouts[0].cur}/{name}:2,S",
                    reader,
                    self.world.now,
                )
            )

    def _pop(self) -> None:
        """A program of another kind takes what it finds, as `Queue.pop` does."""
        host = self._any()
        if not host.alive:
            return
        process = host.process("popper", None)
        system, random = process.client.system, self.world.scheduler.random

        def pop_one(found: entries.FoundEntry) -> None:
            popped = pop.pop_entry(self.layouts[0], found, host=host.label, system=system)
            if popped is None:
                return
            outboxes = Outboxes(lambda: self.layouts, system=system)
            if popped.entry.outputs and outboxes.is_ended(self.layouts[0], popped):
                return
            if (data := popped.read()) is None:
                return
            process.client.sleep(random.choice((0.0, random.uniform(0, 3 * TTL_SECONDS))))
            if popped.unlink():
                self.oracle.handed_out(process, popped.entry.key, data)

        def pop_some() -> None:
            try:
                for found in entries.oldest(self.layouts[0], system=system)[:2]:
                    pop_one(found)
            except MaildeferError:  # told to the program
                pass

        self.world.scheduler.start(process, "pop", pop_some)

    def _cancel(self) -> None:
        """A program cancels what it has pushed, and may be killed at it."""

        def cancel_one(host: SimulatedHost, process: Process, key: str) -> None:
            began = self.world.now
            done = schedule.cancel(self.layouts[0], key, host=host.label, system=process.client.system)
            if done or self.world.now - began < TTL_SECONDS / 2:
                self.oracle.answered_cancel(process, key, done)

        self._plan_one(cancel_one)

    def _reschedule(self) -> None:
        def reschedule_one(host: SimulatedHost, process: Process, key: str) -> None:
            random = self.world.scheduler.random
            after = random.choice((0.0, random.uniform(0.1, 5)))
            pusher = Pusher(self.layouts[0], host=host.label, system=process.client.system)
            due = pusher.due(after=after)
            schedule.reschedule(self.layouts[0], key, due, host=host.label, system=process.client.system)

        self._plan_one(reschedule_one)

    def _plan_one(self, act: Callable[[SimulatedHost, Process, str], None]) -> None:
        """A program does something to an entry that is deferred, or else to any."""
        host, random = self._any(), self.world.scheduler.random
        later = [
            entry_in(name).key for name in self.world.server.directories[self.layouts[0].later_new].names
        ]
        keys = later or [key for key, history in self.oracle.histories.items() if not history.end]
        if not host.alive or not keys:
            return
        process, key = host.process("planner", None), random.choice(sorted(keys))

        def act_once() -> None:
            try:
                act(host, process, key)
            except MaildeferError:  # told to the program
                pass

        self.world.scheduler.start(process, "plan", act_once)
        if random.random() < 0.4:
            self.world.later(random.uniform(0, 0.2), lambda: process.alive and host.end(process))

    def _requeue(self) -> None:
        """An operator puts a dead letter back."""
        host = self.world.scheduler.random.choice(self.hosts)
        if not host.alive:
            return
        process = host.process("operator", None)

        def operate_it() -> None:
            system = process.client.system
            try:
                for layout in self.layouts:
                    for found in list(entries.list_entries(layout, "dead", system=system))[:1]:
                        entries.requeue(layout, found, system=system)
            except Violation:
                raise
            except Exception:  # noqa: BLE001  # told to a person, who tries again
                pass

        self.world.scheduler.start(process, "operate", operate_it)
