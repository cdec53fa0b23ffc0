"""What many hosts ask of one server on a fine day: the real pools, and the requests that an NFS client makes of it.

What a call of a process takes was counted on NFS 4.2 (`python -m benchmarks wire`): a rename is one request, a message
that is read four; a folder is listed anew only where it has changed; and where another host has changed a folder, the
next call by a name in it asks twice more, for that name and for one's rights.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from maildefer.handling.outcomes import ACKED, Outcome
from maildefer.maildir.layout import Format, Layout, create_queue
from tests.simulation import scheduler as scheduling
from tests.simulation.cache import Cache
from tests.simulation.client import Client
from tests.simulation.faults import FaultRates
from tests.simulation.handlers import Handlers
from tests.simulation.hosts import SimulatedHost
from tests.simulation.installed import Installation, layout_of, simulated
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import Server
from tests.simulation.world import World
from tests.support.scandir_model import Listing

LATENCY_SECONDS = 0.0005
HANDLING_SECONDS = 0.02
PAGE_NAMES = 300  # of a folder, in one reply
_MOST_STEPS = 1_000_000_000
_SETTLE_SECONDS = 10.0  # after the last join
_LONGEST_SECONDS = 3600.0


@dataclass(slots=True)
class Traffic:
    """Requests by kind, and how often each folder was changed."""

    requests: Counter[str] = field(default_factory=Counter)
    lost_races: int = 0  # claims of what another host has claimed
    versions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Known:
    """What one host's kernel knows; by the epoch of a folder, which ends where another host's change is noticed."""

    traffic: Traffic
    versions: dict[str, int] = field(default_factory=dict)
    epochs: Counter[str] = field(default_factory=Counter)
    rights: dict[str, int] = field(default_factory=dict)  # the epoch in which they were asked for
    names: dict[str, int] = field(default_factory=dict)  # by path
    listed: dict[str, tuple[int, int]] = field(default_factory=dict)  # epoch and version
    files: set[int] = field(default_factory=set)

    def notice(self, folder: str) -> None:
        """A reply tells the folder's version."""
        if self.versions.get(folder) != self.traffic.versions[folder]:
            self.versions[folder] = self.traffic.versions[folder]
            self.epochs[folder] += 1

    def change(self, folder: str) -> None:
        """A reply tells of a change of our own."""
        self.notice(folder)
        self.traffic.versions[folder] += 1
        self.versions[folder] += 1

    def ask_rights(self, folder: str) -> None:
        if self.rights.get(folder) != self.epochs[folder]:
            self.rights[folder] = self.epochs[folder]
            self.traffic.requests["ACCESS"] += 1

    def look_up(self, path: str) -> bool:
        """Whether the server had to be asked for a name."""
        folder = path.rpartition("/")[0]
        self.ask_rights(folder)
        epoch = self.epochs[folder]
        if self.names.get(path) == epoch or self.listed.get(folder, (-1,))[0] == epoch:
            return False
        self.traffic.requests["LOOKUP"] += 1
        self.notice(folder)
        self.names[path] = self.epochs[folder]
        return True


class CountedClient(Client):
    """The calls of one process, each with its requests."""

    def __init__(self, traffic: Traffic, known: Known, *facts: Any) -> None:
        super().__init__(*facts)
        self._traffic, self._known = traffic, known

    def rename(self, source: str, destination: str, **folders: Any) -> None:
        old = self._at(source, folders.get("src_dir_fd"))
        new = self._at(destination, folders.get("dst_dir_fd"))
        known, there = self._known, new.rpartition("/")[0]
        was_asked = known.look_up(old)
        known.ask_rights(there)
        if not was_asked or self.world.server.look(old) is not None:
            self._traffic.requests["RENAME"] += 1
        try:
            super().rename(old, new)
        except FileNotFoundError:
            self._traffic.lost_races += there.endswith("/cur")
            raise
        self._change_folders(old, new)
        known.names[new] = known.epochs[there]

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        self._known.look_up(path)
        self._traffic.requests["REMOVE"] += 1
        super().unlink(path)
        self._change_folders(path)

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._traffic.requests["CREATE"] += 1
        super().mkdir(path, mode, dir_fd=dir_fd)
        self._change_folders(self._at(path, dir_fd))

    def utime(self, folder: str | int) -> None:
        path, known = folder if isinstance(folder, str) else self._opened[folder][1], self._known
        if path != folder:  # it was opened, for this alone
            self._traffic.requests["GETATTR"] += 1
            known.notice(path)
        known.ask_rights(path)
        self._traffic.requests["SETATTR"] += 1
        super().utime(folder)
        known.change(path)
        known.rights.pop(path)  # as after each change of a folder's own attributes

    def listdir(self, folder: str | int) -> list[str]:
        path, known = folder if isinstance(folder, str) else self._opened[folder][1], self._known
        requests, version = self._traffic.requests, self._traffic.versions[path]
        names = super().listdir(folder)
        requests["GETATTR"] += 1
        known.notice(path)
        if known.listed.get(path, (0, -1))[1] != version:
            known.ask_rights(path)
            requests["READDIR"] += 1 + len(names) // PAGE_NAMES
        known.listed[path] = known.epochs[path], version
        return names

    def scandir(self, path: str | int) -> Listing:
        return Listing(self.listdir(path))

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        at, requests = self._at(path, dir_fd), self._traffic.requests
        opened = super().open(path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_DIRECTORY or at in self.world.server.directories:
            return opened
        if flags & os.O_CREAT:
            requests.update(("OPEN", "SETATTR", "CLOSE"))
            self._change_folders(at)
            self._known.names[at] = self._known.epochs[at.rpartition("/")[0]]
            return opened
        self._known.look_up(at)
        if (number := self._opened[opened][0].number) not in self._known.files:
            self._known.files.add(number)
            requests.update(("OPEN", "READ", "CLOSE", "DELEGRETURN"))
        return opened

    def write(self, descriptor: int, data: bytes) -> int:
        self._traffic.requests["WRITE"] += 1
        self._known.files.add(self._opened[descriptor][0].number)
        return super().write(descriptor, data)

    def lstat(self, path: str, *, dir_fd: int | None = None) -> os.stat_result:
        self._known.look_up(self._at(path, dir_fd))
        return super().lstat(path, dir_fd=dir_fd)

    def _change_folders(self, *paths: str) -> None:
        for folder in {path.rpartition("/")[0] for path in paths}:
            self._known.change(folder)


class CountedHost(SimulatedHost):
    """A host whose requests are counted."""

    def __init__(self, traffic: Traffic, *facts: Any) -> None:
        self._traffic, self._known = traffic, Known(traffic)
        super().__init__(*facts)
        self.calm = True

    def client_of(self, process: Process) -> Client:
        return CountedClient(self._traffic, self._known, self.world, process, self.cache)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What all hosts of one run have asked for."""

    hosts: int
    messages: int
    seconds: float
    requests: Counter[str]
    lost_races: int

    @property
    def a_second(self) -> float:
        return self.requests.total() / self.seconds

    @property
    def a_host_second(self) -> float:
        return self.a_second / self.hosts


def idle(hosts: int, *, workers: int = 2, seconds: float = 60.0) -> Counted:
    """Count what idle pools ask for in so many seconds; how many workers they have makes no difference."""
    return _Run(hosts, workers).counted(0, lambda run: run.pass_by(seconds))


def handled(hosts: int, messages: int, *, workers: int = 2, rate: float = 0.0) -> Counted:
    """Count until so many messages are acked, without their pushes: a backlog, or `rate` a second to all hosts."""
    return _Run(hosts, workers).counted(messages, lambda run: run.handle(messages, rate))


class _Uninterested(Oracle):
    """Judges nothing: what is counted here has no fault in it."""

    def ended(self, process: Process) -> None:
        pass

    def reports_settled(self, process: Process, claimed: str) -> None:
        pass

    def reports_lost(self, process: Process, claimed: str) -> None:
        pass


def _handle(handlers: Handlers, request: Any) -> tuple[Outcome, str]:
    """In the place of a handler that may end in anything."""
    random = handlers._host.world.scheduler.random
    handlers._slots.process.client.sleep(random.expovariate(1 / HANDLING_SECONDS))
    return ACKED, "handler"


class _Run:
    """One server, and hosts that begin one after the other within a beat."""

    def __init__(self, hosts: int, workers: int) -> None:
        self._number, self._workers = hosts, workers
        self.scheduler = Scheduler(hosts)
        rates = FaultRates(latency=LATENCY_SECONDS, hosts=hosts, workers=workers, paperwork=True)
        self.world = World(self.scheduler, Server(), rates)
        self.layout: Layout = layout_of("/q")
        self.oracle = _Uninterested(self.world, [self.layout])
        self.hosts: list[CountedHost] = []
        self.traffic = Traffic()

    def counted(self, messages: int, work: Callable[[_Run], None]) -> Counted:
        """Let all hosts settle, and count what they ask for during the work."""
        installation = Installation(
            scheduler=self.scheduler,
            processes=self.oracle.processes,
            heard=lambda event, facts: None,
            look=lambda real, path, name, system: real(path, name, system),
            thorough=True,
            kill=lambda pid: None,
            records=None,
            layouts=[self.layout],
        )
        with (
            simulated(installation),
            patch.object(scheduling, "_MOST_STEPS", _MOST_STEPS),
            patch.object(Handlers, "dispatch", _handle),
        ):
            self._make_queue()
            SimulatedHost.pids = iter(range(100, 10**9))  # type: ignore[assignment]
            for number in range(self._number):
                self.hosts.append(CountedHost(self.traffic, self.world, self.oracle, [self.layout], number))
                self.pass_by(Format().beat_seconds / self._number)
            self.pass_by(_SETTLE_SECONDS)
            self.traffic.requests.clear()
            self.traffic.lost_races = 0
            began = self.world.now
            try:
                work(self)
            finally:
                for process in self.oracle.processes.values():
                    self.scheduler.kill(process)
        return Counted(
            hosts=self._number,
            messages=messages,
            seconds=self.world.now - began,
            requests=Counter(self.traffic.requests),
            lost_races=self.traffic.lost_races,
        )

    def pass_by(self, seconds: float) -> None:
        self.scheduler.run_to(self.scheduler.now + seconds)

    def handle(self, messages: int, rate: float) -> None:
        """Put messages into `new/` as a host outside of the pools does, and wait until all are gone."""
        server, random = self.world.server, self.scheduler.random
        left = messages

        def come() -> None:
            nonlocal left
            left -= 1
            now = self.world.mount_time
            name = f"{int(now)}.M{left}P1Q{left}R{random.getrandbits(32):08x}.outside,S=2000"
            server.write(server.create(f"{self.layout.new}/{name}", now, exclusive=True), b"body\n", now)
            self.traffic.versions[self.layout.new] += 1
            if rate and left:
                self.scheduler.at(self.world.now + random.expovariate(rate), come)

        for _ in range(1 if rate else messages):
            come()
        folders = [server.directory(self.layout.new), server.directory(self.layout.cur)]
        self.scheduler.run(
            lambda: not left and not any(folder.names for folder in folders),
            limit=self.world.now + _LONGEST_SECONDS,
        )

    def _make_queue(self) -> None:
        process = Process("setup", 1)
        process.client = Client(self.world, process, Cache())
        done: list[Layout] = []
        self.scheduler.start(
            process,
            "make",
            lambda: done.append(create_queue("/q", format=Format(), system=process.client.system)),
        )
        self.scheduler.run(lambda: bool(done))
