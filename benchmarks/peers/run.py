"""Takes all peers in turn, round by round, and makes figures of what was measured."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, compare
from benchmarks.peers.contenders import PEERS, Peer, Place
from benchmarks.peers.measurements import (
    FULL,
    QUICK,
    Loss,
    Scale,
    drain_rate,
    enqueue_rate,
    idle,
    losses,
    wake_ms,
)
from benchmarks.peers.servers import Postgres, Redis, Server
from benchmarks.places import CACHE, ROOT, Unavailable

BENCHMARK = "peers"
ENQUEUE, DRAIN, WAKE = "enqueue", "drain", "wake-up"
UNSYNCED = "enqueue, never synced"
RELAXED = {name: f"{name}, synced each second" for name in (ENQUEUE, DRAIN)}
MEMORY, SERVER_MEMORY, CPU = "idle PSS of workers", "idle PSS of its server", "idle processor time"
KILLED = {False: "workers killed", True: "workers and server killed"}
NEVER, TWICE, LAST = "never run", "run twice", "all run after"
UNITS = {
    ENQUEUE: "jobs/s",
    DRAIN: "jobs/s",
    WAKE: "ms",
    MEMORY: "MB",
    SERVER_MEMORY: "MB",
    CPU: "ms/s",
    NEVER: "jobs",
    TWICE: "jobs",
    LAST: "s",
}
Samples = dict[str, dict[str, list[float]]]  # of each case, of each peer


def measure(quick: bool) -> list[Figure]:
    """Eight workers and jobs that do nothing, on ext4; then 5 ms a job, and kills. First installs what is missing."""
    subprocess.run([ROOT / ".ci/setup", "peers"], check=False)  # what it can't have, it says; that is skipped
    with _base() as base:
        return measure_peers(base, QUICK if quick else FULL, PEERS)


def measure_peers(base: str, scale: Scale, peers: Sequence[Peer]) -> list[Figure]:
    """Of those of `peers` that are installed, in a folder of the disk that is measured."""
    samples: Samples = {}
    with _servers(base) as servers:
        found = [peer for peer in peers if servers.have(peer)]
        _enqueues(samples, base, found, servers, scale)
        for number in range(max(scale.rounds, scale.kills)):
            for peer in found:
                if number < scale.rounds:
                    _note(samples, peer, _rates(base, peer, servers, scale))
                if number < scale.kills:
                    _note(samples, peer, _kills(base, peer, servers, scale))
    return figures(samples)


def _enqueues(samples: Samples, base: str, peers: Sequence[Peer], servers: _Servers, scale: Scale) -> None:
    """Of all peers at once, a few jobs of each in turn, since a disk is slow for seconds at a time; then relaxed."""
    for sync in ("always", "everysec"):
        with ExitStack() as stack:
            enqueuers = {}
            for peer in peers:
                server = servers.of(peer)
                if isinstance(server, Redis):
                    server.sync(sync)
                if sync == "always" or isinstance(server, Redis) or peer.name == OURS:
                    place = stack.enter_context(_place(base, peer, server))
                    enqueuers[peer] = stack.enter_context(place.enqueuer())
            for enqueuer in enqueuers.values():
                enqueuer.ask("0 1 0")  # connections and late imports are no part of it
            for _ in range(scale.turns):
                for peer, enqueuer in enqueuers.items():
                    case = ENQUEUE if peer.syncs else UNSYNCED
                    case = case if sync == "always" else RELAXED[ENQUEUE]
                    _note(samples, peer, {case: enqueue_rate(enqueuer)})
    for peer in peers:
        if isinstance(server := servers.of(peer), Redis):
            server.sync("always")


def _rates(base: str, peer: Peer, servers: _Servers, scale: Scale) -> dict[str, float]:
    """What is measured of workers that nobody kills."""
    server = servers.of(peer)
    with _place(base, peer, server) as place, place.enqueuer() as enqueuer, place.workers() as pid:
        place.warm_up(enqueuer)
        resting = idle(place, pid, scale)
        found = {MEMORY: resting.workers_mb, CPU: resting.cpu_ms}
        found |= {SERVER_MEMORY: resting.server_mb} if server else {}
        found[WAKE] = wake_ms(place, enqueuer, scale)
        found[DRAIN] = drain_rate(place, enqueuer, scale)
        if isinstance(server, Redis):
            found[RELAXED[DRAIN]] = drain_rate(place, enqueuer, scale, "everysec")
    return found


def _kills(base: str, peer: Peer, servers: _Servers, scale: Scale) -> dict[str, float]:
    found: dict[str, float] = {}
    server = servers.of(peer)
    for everything in (False, True) if server and scale.servers_killed else (False,):
        with _place(base, peer, server, short_waits=True) as place:
            found |= _loss(KILLED[everything], losses(place, scale, everything=everything))
    return found


def _loss(killed: str, loss: Loss) -> dict[str, float]:
    return {
        f"{killed}: {NEVER}": loss.never,
        f"{killed}: {TWICE}": loss.twice,
        f"{killed}: {LAST}": loss.seconds,
    }


def figures(samples: Samples) -> list[Figure]:
    """Ratios are maildefer's figure to the peer's, round by round; what was lost is counted."""
    found = []
    for case, taken in samples.items():
        unit = UNITS[case.partition(": ")[2] or case.partition(",")[0]]
        if unit in ("jobs", "s") or case == SERVER_MEMORY:
            found += [
                Figure(benchmark=BENCHMARK, case=case, name=name, unit=unit, samples=values)
                for name, values in taken.items()
            ]
        else:
            ours = samples[case.partition(",")[0]][OURS]  # where the case is a setting of the peer's server
            found += compare(BENCHMARK, case, {OURS: ours} | taken, unit, {})
    return found


def _note(samples: Samples, peer: Peer, found: Mapping[str, float]) -> None:
    for case, value in found.items():
        samples.setdefault(case, {}).setdefault(peer.name, []).append(value)


@contextmanager
def _place(base: str, peer: Peer, server: Server | None, *, short_waits: bool = False) -> Iterator[Place]:
    with filesystem.fresh_directory(base) as directory:
        yield Place(peer, directory, server, short_waits=short_waits)


class _Servers:
    """Those that have been asked for, each started once."""

    def __init__(self, base: str, sockets: str) -> None:
        self._makers: dict[str, Callable[[], Server]] = {
            "redis": lambda: Redis(base, sockets),
            "postgres": lambda: Postgres(base, sockets),
        }
        self._started: dict[str, Server] = {}

    def of(self, peer: Peer) -> Server | None:
        """The peer's; Unavailable where it is not installed."""
        if peer.server and peer.server not in self._started:
            server = self._makers[peer.server]()
            try:
                server.start()
            except BaseException:
                server.stop()
                raise
            self._started[peer.server] = server
        return self._started[peer.server] if peer.server else None

    def have(self, peer: Peer) -> bool:
        """False where the peer, or its server, is not installed, which is printed."""
        try:
            return bool(peer.python) and (self.of(peer) is not None or peer.server is None)
        except Unavailable as why:
            print(f"  {peer.name} skipped: {why}")
            return False

    def stop(self) -> None:
        for server in self._started.values():
            server.stop()


@contextmanager
def _servers(base: str) -> Iterator[_Servers]:
    sockets = tempfile.mkdtemp(prefix="peers-")  # a short path
    servers = _Servers(base, sockets)
    try:
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(sockets)


@contextmanager
def _base() -> Iterator[str]:
    """A fresh ext4, or a folder of this project's disk."""
    with ExitStack() as stack:
        try:
            base = stack.enter_context(filesystem.ext4())
        except Unavailable as why:
            print(f"  on this project's disk, since ext4 can't be had: {why}")
            CACHE.mkdir(parents=True, exist_ok=True)
            base = stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", dir=CACHE))
        yield base
