"""What a host asks of its NFS server: requests a second at idle, and for each message, counted by real kernels.

The client's kernel counts what it sends, by kind; the server's counts what it gets, and the two have to agree. Clients
and server are guests (tests/mount): counts depend on no speed, but the listings of a drain do, a little.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from benchmarks.figures import Figure, Limit
from benchmarks.places import Unavailable
from maildefer.maildir.layout import Format
from tests.mount.bed import NfsBed, missing
from tests.mount.guest import Guest, Job
from tests.mount.harness import Crew, eventually
from tests.mount.requests import received, sent
from tests.simulation import traffic

VERSIONS = ("4.2", "3")
AGREED = Format()
SETTLE_SECONDS = 10.0  # after a join, until caches and pauses are those of a pool that is idle
IDLE_SECONDS, QUICK_SECONDS = 60.0, 30.0  # as long as the rarest chores wait
MESSAGES, QUICK_MESSAGES = 1000, 300
ARRIVALS_A_SECOND = 10
SERVED = {"one": ["one"], "eight": ["eight"], "three": ["a", "b", "c"]}
AGREEMENT = Limit(bound=0.1, at_most=True)  # of both kernels, and with the simulation
RARE = 0.005  # kinds of fewer requests, a second or a message, are left out


def measure(quick: bool) -> list[Figure]:
    """Idle pools, one on each client; then messages on one client and on three."""
    if text := missing():
        raise Unavailable(text)
    figures = []
    for version in VERSIONS[: 1 if quick else None]:
        with NfsBed(clients=3, vers=version) as bed:
            figures += Traffic(bed, quick).figures()
    return figures


class Traffic:
    """The pools of one bed, and what they ask for."""

    def __init__(self, bed: NfsBed, quick: bool) -> None:
        self._bed, self._crew = bed, Crew(bed, settings="conf.wire")
        self._seconds = QUICK_SECONDS if quick else IDLE_SECONDS
        self._messages = QUICK_MESSAGES if quick else MESSAGES
        self._idle = Counter[str]()  # what one host with eight workers asks for while idle, in that time
        self._pushed: dict[str, float] = {}  # what a push asks for
        self._rows: list[Figure] = []

    def figures(self) -> list[Figure]:
        """Measure all cases."""
        crew, (first, second, third) = self._crew, self._bed.clients
        queues = [f"/mnt/nfs/{name}" for names in SERVED.values() for name in names]
        made = crew.python(first, "make.py", f"{AGREED.beat_seconds}", f"{AGREED.ttl_seconds}", *queues)
        if made.wait(60) != 0:
            raise RuntimeError(made.err.read_text())
        self._idle_apart(first, second, third)
        self._push(first)
        self._handle("one host", [first])
        if self._bed.vers == VERSIONS[0]:
            self._handle("three hosts", [first, second, third])
        return self._rows

    def _idle_apart(self, *clients: Guest) -> None:
        """Measure three pools that share nothing but the server."""
        workers = {"one": 1, "eight": 8, "three": 8}
        names = {"one": "1 worker, 1 queue", "eight": "8 workers, 1 queue", "three": "8 workers, 3 queues"}
        pools = [
            self._pool(guest, workers[case], [f"/mnt/nfs/{name}" for name in SERVED[case]])
            for guest, case in zip(clients, SERVED, strict=True)
        ]
        self._await_joined(sum(map(len, SERVED.values())))
        counted = self._counted(clients, lambda: time.sleep(self._seconds))
        for case, counts in zip(SERVED, counted, strict=True):
            self._note(f"idle, {names[case]}", "requests/s", counts, self._seconds)
        self._compare(counted[1], 1)
        self._end(pools)

    def _push(self, guest: Guest) -> None:
        """Measure pushes one by one, where no pool is."""
        count = self._messages // 2
        [counts] = self._counted([guest], lambda: self._run(guest, "push.py", str(count), "0"))
        self._note("push", "requests", counts, count)
        self._pushed = {kind: sent / count for kind, sent in counts.items()}

    def _handle(self, case: str, clients: list[Guest]) -> None:
        """Measure an idle pool on each client, then a backlog, and then messages that come from another host."""
        pools = [self._pool(guest, 8, ["/mnt/nfs/queue"]) for guest in clients]
        self._await_joined(len(clients))
        if len(clients) > 1:
            apart = self._counted(clients, lambda: time.sleep(self._seconds))
            idle = sum(apart, Counter[str]())
            self._note(f"idle, {case}, 1 queue", "requests/s a host", idle, self._seconds * len(clients))
            self._compare(idle, len(clients))
        self._signal(clients, "TSTP")
        self._run(clients[0], "fill.py", str(self._messages), "noop@test")
        name, begin = f"message of a backlog, {case}", lambda: self._signal(clients, "CONT")
        self._drain(name, clients, begin, self._messages, Counter())
        count = self._messages // 5
        pushed = str(count), f"{1 / ARRIVALS_A_SECOND}"
        what = f"message, {ARRIVALS_A_SECOND} a second from a host, {case}"
        pushes = Counter({kind: round(each * count) for kind, each in self._pushed.items()})
        self._drain(what, clients, lambda: self._run(clients[-1], "push.py", *pushed), count, pushes)
        self._end(pools)

    def _drain(
        self, case: str, clients: list[Guest], come: Callable[[], object], count: int, pushes: Counter[str]
    ) -> None:
        """Measure what these messages take, less their pushes, and what idle pools ask for in that time."""
        before, began = self._crew.count("attempt.ended"), time.monotonic()

        def handled() -> None:
            come()
            eventually(lambda: self._crew.count("attempt.ended") - before >= count, "all are handled", 300)

        counts = sum(self._counted(clients, handled), Counter[str]())
        share = (time.monotonic() - began) / self._seconds
        for kind, idle in self._idle.items():
            counts[kind] -= round(idle * share)
        counts.subtract(pushes)
        self._note(case, "requests", counts, count)

    def _compare(self, counts: Counter[str], hosts: int) -> None:
        """Compare what idle hosts have asked for with what simulated ones do, which are counted by NFS 4.2's rules."""
        self._idle = counts
        if self._bed.vers == "4.2":
            told = traffic.idle(hosts)
            off = abs(told.a_host_second / (counts.total() / hosts / self._seconds) - 1)
            self._rows.append(self._figure(f"simulated, {hosts} idle", "off by", "", off, AGREEMENT))

    # Means

    def _counted(self, clients: Iterable[Guest], work: Callable[[], object]) -> list[Counter[str]]:
        """Return what each client has sent meanwhile; the server has to agree."""
        clients = list(clients)
        others = [guest for guest in self._bed.clients if guest not in clients]
        before, got = [sent(guest) for guest in (*clients, *others)], received(self._bed)
        work()
        after, got = [sent(guest) for guest in (*clients, *others)], received(self._bed) - got
        told = [now - then for now, then in zip(after, before, strict=True)]
        off = abs(sum(counts.total() for counts in told) / max(got, 1) - 1)
        self._rows.append(self._figure("client's count beside the server's", "off by", "", off, AGREEMENT))
        return told[: len(clients)]

    def _note(self, case: str, unit: str, counts: Counter[str], share: float) -> None:
        self._rows.append(self._figure(case, "all", unit, counts.total() / share))
        self._rows += [
            self._figure(case, kind, unit, count / share)
            for kind, count in counts.most_common()
            if count / share > RARE
        ]

    def _figure(self, case: str, name: str, unit: str, value: float, limit: Limit | None = None) -> Figure:
        case = f"NFS {self._bed.vers}: {case}"
        return Figure(benchmark="wire", case=case, name=name, unit=unit, samples=[value], limit=limit)

    def _pool(self, guest: Guest, workers: int, queues: list[str]) -> Job:
        pid = "/run/maildefer-0/pool.pid"  # not on the mount
        pool = self._crew.maildefer(guest, "supervise", "--workers", str(workers), "--pid", pid, *queues)
        self._crew.pools.append(pool)
        return pool

    def _await_joined(self, queues: int) -> None:
        eventually(lambda: self._crew.count("lease.joined") >= queues, "all pools join", 90)
        time.sleep(SETTLE_SECONDS)

    def _signal(self, clients: Iterable[Guest], name: str) -> None:
        for guest in clients:
            guest.check(
                ["sh", "-c", f"kill -{name} $(cat /run/maildefer-0/pool.pid | head -n 1 | tr -dc 0-9)"]
            )

    def _run(self, guest: Guest, *argv: str) -> None:
        done = self._crew.python(guest, *argv)
        if done.wait(300) != 0:
            raise RuntimeError(f"{argv[0]}: {done.err.read_text()}")

    def _end(self, pools: list[Job]) -> None:
        self._signal([pool.guest for pool in pools], "TERM")
        for pool in pools:
            if pool.wait(60) != 0:
                raise RuntimeError(self._crew.tail(pool))
            self._crew.pools.remove(pool)
