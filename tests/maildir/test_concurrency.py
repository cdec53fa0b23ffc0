"""Real processes on one queue: every entry handled once, and what the dead held taken back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

import pytest

from maildefer.errors import ClaimLost
from maildefer.maildir import scan
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.names import EntryName, Owner, lease_name
from maildefer.maildir.system import SYSTEM, boottime
from maildefer.maildir.upkeep import leases
from maildefer.maildir.upkeep.leases import Lease
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.reclaim import OwnerState, Reclaimer
from tests.support.queues import FakeSlots, everywhere, holder, put

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # Python 3.12
]
FORMAT = Format(beat_seconds=0.1, ttl_seconds=3.0)  # a busy disk may hold up a beat
FORK = multiprocessing.get_context("fork")
ENTRIES = 2000
PATIENCE_SECONDS = 60.0
HOSTS = ("one-000001", "two-000002")


@pytest.fixture
def queue(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    path = tmp_path_factory.mktemp("shared") / "queue"
    return create_queue(str(path), format=FORMAT)


def start(target: Callable[..., None], *arguments: object) -> tuple[ForkProcess, Connection]:
    ours, theirs = FORK.Pipe(duplex=False)
    process = FORK.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def received(pipe: Connection) -> list[str]:
    assert pipe.poll(PATIENCE_SECONDS), "waited too long"
    answer = pipe.recv()
    assert isinstance(answer, list)
    return answer


def drain(pipe: Connection, queue: Layout, lease: str) -> None:
    """Claim and ack whatever is listed, until nothing is; send what was handled, by its content."""
    claimer = Claimer(queue, FakeSlots(), lease=lease, host=lease[:10])
    handled: list[str] = []
    while names := list(scan.entries(queue.new)):
        for name in names:
            if (claim := claimer.claim(name)) is not None:
                handled.append(claim.read().decode())
                claim.ack()
    pipe.send(handled)


@pytest.mark.invariant(3)
def test_processes_of_two_hosts_handle_every_entry_once(queue: Layout) -> None:
    for number in range(ENTRIES):
        put(queue.new, f"{number:04}.x", str(number).encode())
    names = [Lease.join(queue, lease_name(host, SYSTEM), holder(host=host)).name for host in HOSTS]
    workers = [start(drain, queue, names[number % 2]) for number in range(6)]
    handled = Counter(content for _, pipe in workers for content in received(pipe))
    for process, _ in workers:
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0
    assert handled == Counter(map(str, range(ENTRIES)))
    assert everywhere(queue) == {}


def hold(pipe: Connection, queue: Layout, lease: str, count: int) -> None:
    """Claim so many, say so, and never settle."""
    claimer = Claimer(queue, FakeSlots(), lease=lease, host=lease[:10])
    claims = [claimer.claim(name) for name in sorted(scan.entries(queue.new))[:count]]
    pipe.send([claim.name for claim in claims if claim is not None])
    signal.pause()


class Host:
    """A host that beats in a thread, observes and recovers, as a keeper does."""

    def __init__(self, queue: Layout, label: str) -> None:
        self.queue = queue
        self.format = FORMAT
        self.lease = Lease.join(queue, lease_name(label, SYSTEM), holder(host=label))
        self.last_good_beat = boottime()
        self.dead: set[int] = set()
        self.silent = threading.Event()
        self.observer = LeaseObserver(queue, self.format, lambda: self.lease.name, lambda holder: False)
        self.reclaimer = Reclaimer(
            queue,
            self.observer,
            own=lambda: self.lease.name,
            look=lambda: self._state_of,
            host=label,
            max_crashes=5,
            grace_seconds=60,
        )
        self.beating = threading.Thread(target=self._beat, daemon=True)
        self.beating.start()

    def _beat(self) -> None:
        while not self.silent.wait(self.format.beat_seconds):
            sent = boottime()
            self.lease.renew()
            self.last_good_beat = sent

    def _state_of(self, owner: Owner) -> OwnerState:
        return "dead" if owner.pid in self.dead else "held"

    def fall_silent(self) -> None:
        self.silent.set()
        self.beating.join(PATIENCE_SECONDS)

    def keep(self, until: Callable[[], bool]) -> list[str]:
        """Look and scan until it is so; the fenced leases."""
        fenced: list[str] = []
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            assert time.monotonic() < deadline, "waited too long"
            fenced += self.observer.look(self.last_good_beat)
            self.reclaimer.scan()
            threading.Event().wait(0.02)
        return fenced


@pytest.fixture
def here(queue: Layout) -> Host:
    return Host(queue, HOSTS[0])


@pytest.mark.invariant(5)
def test_a_killed_processs_claims_are_taken_back_by_its_host_and_charged(queue: Layout, here: Host) -> None:
    for number in range(10):
        put(queue.new, f"{number}.x")
    process, pipe = start(hold, queue, here.lease.name, 10)
    assert len(received(pipe)) == 10
    assert not here.reclaimer.scan()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(PATIENCE_SECONDS)
    here.dead.add(process.pid or 0)
    here.keep(lambda: not os.listdir(queue.cur))
    here.fall_silent()
    assert sorted(os.listdir(queue.new)) == [f"{number}.x,a=1,c=1,n=1" for number in range(10)]


@pytest.mark.invariant(6)
def test_a_silent_hosts_claims_are_taken_back_by_another_after_the_ttl_and_a_beating_ones_are_not(
    queue: Layout, here: Host
) -> None:
    there = Host(queue, HOSTS[1])
    put(queue.new, "1.x")
    process, pipe = start(hold, queue, there.lease.name, 1)
    [name] = received(pipe)
    beats = there.lease.beat
    here.keep(lambda: there.lease.beat >= beats + 60)  # twice the TTL
    assert os.listdir(queue.cur) == [name]
    there.fall_silent()
    began = boottime()
    fenced = here.keep(lambda: bool(os.listdir(queue.new)))
    here.fall_silent()
    assert fenced == [there.lease.name]
    assert boottime() - began > 2.5, "no sooner than the TTL, less the last beat's age"
    assert os.listdir(queue.new) == ["1.x,a=1,c=1,n=1"]
    process.kill()
    process.join(PATIENCE_SECONDS)


@pytest.mark.invariant(7)
def test_a_zombie_that_wakes_after_its_fence_cannot_settle(queue: Layout, here: Host) -> None:
    there = Host(queue, HOSTS[1])
    zombie = Claimer(queue, FakeSlots(), lease=there.lease.name, host=HOSTS[1])
    put(queue.new, "1.x")
    claim = zombie.claim("1.x")
    assert claim is not None
    there.fall_silent()
    here.keep(lambda: bool(os.listdir(queue.new)))
    here.fall_silent()
    with pytest.raises(ClaimLost):
        claim.ack()
    assert os.listdir(queue.new) == ["1.x,a=1,c=1,n=1"]
    assert not leases.fence(queue, there.lease.name, there.lease.beat)


def release(pipe: Connection, queue: Layout, lease: str) -> None:
    """Claim and release, at random and against others, until every entry has come round often enough."""
    claimer = Claimer(queue, FakeSlots(), lease=lease, host=lease[:10])
    handled: list[str] = []
    while names := list(scan.entries(queue.new)):
        for name in names:
            if (claim := claimer.claim(name)) is None:
                continue
            if claim.entry.returns < 20:
                claim.release()
            else:
                handled.append(claim.read().decode())
                claim.ack()
    pipe.send(handled)


@pytest.mark.invariant(4)
def test_entries_that_go_back_and_forth_between_processes_are_neither_lost_nor_doubled(queue: Layout) -> None:
    for number in range(100):
        put(queue.new, f"{number}.x", str(number).encode())
    lease = Lease.join(queue, lease_name(HOSTS[0], SYSTEM), holder())
    workers = [start(release, queue, lease.name) for _ in range(4)]
    handled = Counter(content for _, pipe in workers for content in received(pipe))
    for process, _ in workers:
        process.join(PATIENCE_SECONDS)
    left = [EntryName.parse(name).key.removesuffix(".x") for name in os.listdir(queue.new)]
    assert handled + Counter(left) == Counter(map(str, range(100)))
    assert os.listdir(queue.cur) == []
