"""What a model of a pool consists of: its rules, the faults that there may still be, and its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

HOSTS: Final = 2
LIVES: Final = 3  # leases that a host may have, one after the other
UNBORN, FENCED, LEFT = -1, -2, -3  # of a lease; else the number of its beats
GONE: Final = "acked"
OF_LEASES: Final = ("beat", "fence", "leave")
SETTLES: Final = ("ack", "settle", "release")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The protocol; every other value is a tempting alternative."""

    absence: str = "two listings within a beat"  # two listings any time apart, one listing
    reclaim: str = "absent"  # without a fence, leases first, at the fence
    audit: str = "list, then board"  # board, then list; none
    has_own_destination: bool = True  # a claim
    raises_n: bool = True
    fences_the_beat_seen: bool = True
    charges_at_claim: bool = True
    settles_by_name: bool = True  # or whatever claimed name the key has
    returns_with_next_n: bool = True  # what a mail reader has moved
    looks_after_lost_claim: bool = True  # else the audit has to find it
    judges_settles_by_lease: bool = True  # or by their destination
    looks_after_lost_beat: bool = True
    remembers_deaths: bool = True  # a new keeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    workers: tuple[int, ...] = (0, 1)  # the host of each
    entries: int = 1
    beats: int = 0  # of each host's first lease
    most_crashes: int = 2
    rejoins: bool = False  # a host that was lost or has left
    audits_race: bool = False  # else an audit begins only where no worker is on the name
    both_promote: bool = False  # else one keeper does, and returns what a mail reader has moved


class Budget(NamedTuple):
    """How many of each there may still be."""

    network: int = 0  # copies, lost replies, overlooked names
    worker_kills: int = 0
    keeper_kills: int = 0
    host_losses: int = 0
    fences: int = 0  # of an owner that lives and is silent
    settles: int = 0  # other than an ack; and requeues
    moves: int = 0  # by a mail reader
    drains: int = 0


class Owner(NamedTuple):
    lease: int
    worker: int
    seq: int


class Name(NamedTuple):
    folder: str
    a: int = 0
    c: int = 0
    n: int = 0
    owner: Owner | None = None

    def __str__(self) -> str:
        owner = f":1,L{self.owner.lease}.{self.owner.worker}.{self.owner.seq}" if self.owner else ""
        return f"{self.folder}/K,a={self.a},c={self.c},n={self.n}{owner}"


class Request(NamedTuple):
    """A change of one name, on its way to the server."""

    kind: str
    of: int  # the number of an entry or a lease
    source: Name | int
    target: Name | int
    claim: int = 0  # for the checks: which claim of its entry a settle is for
    is_done: bool = False  # for the checks: it, or a copy, has taken effect

    def __str__(self) -> str:
        what = f"L{self.of}." if self.kind in OF_LEASES else ""
        return f"{self.kind} {what}{self.source} → {self.target}"

    def is_copy_of(self, other: Request) -> bool:
        return self[:4] == other[:4]


class Entry(NamedTuple):
    name: Name = Name("new")
    claims: int = 0
    is_completed: bool = False
    starts: int = 0  # of handlers, since it was requeued
    has_begun: bool = False  # a handler, with this claim


class Worker(NamedTuple):
    state: str = "idle"  # claiming, looking, running, settling, in doubt, dead, off
    seq: int = 0
    entry: int = 0
    claim: int = 0
    name: Name | None = None  # that the board says it is on
    request: Request | None = None

    @property
    def is_on(self) -> bool:
        return self.state not in ("idle", "dead", "off")


class Task(NamedTuple):
    """What a keeper is doing."""

    kind: str = ""  # send; list leases; reclaim all of a lease; audit a name; audit a worker
    of: int = 0  # the entry, the lease or the worker
    name: Name | None = None
    request: Request | None = None
    listing: int = 1  # the first or the second
    was_live: bool = False  # the lease, when that listing began
    beats: int = 0  # of the lease, since the first began
    beats_before: int = 0  # this listing


class Host(NamedTuple):
    state: str = "up"  # draining, left, down
    life: int = 0
    beat: Request | None = None
    is_in_doubt: bool = False  # about that beat
    task: Task = Task()

    @property
    def is_there(self) -> bool:
        return self.state in ("up", "draining")


class State(NamedTuple):
    entries: tuple[Entry, ...]
    leases: tuple[int, ...]
    hosts: tuple[Host, ...]
    workers: tuple[Worker, ...]
    budget: Budget
    late: frozenset[Request] = frozenset()  # copies that may still be carried out

    def lease_of(self, host: int) -> int:
        return host * LIVES + self.hosts[host].life

    def is_live(self, lease: int) -> bool:
        return self.leases[lease] >= 0

    def with_entry(self, number: int, entry: Entry) -> State:
        return self._replace(entries=put(self.entries, number, entry))

    def with_worker(self, number: int, worker: Worker) -> State:
        return self._replace(workers=put(self.workers, number, worker))

    def with_host(self, number: int, host: Host) -> State:
        return self._replace(hosts=put(self.hosts, number, host))

    def less(self, what: str) -> State:
        """With one fault of that kind less to come."""
        return self._replace(budget=self.budget._replace(**{what: getattr(self.budget, what) - 1}))

    def with_late(self, *requests: Request | None) -> State:
        """What a process has sent may still arrive when it is dead."""
        return self._replace(late=self.late | {request for request in requests if request is not None})


def put(items: tuple[_T, ...], index: int, item: _T) -> tuple[_T, ...]:
    return (*items[:index], item, *items[index + 1 :])


def left_name(name: Name, folder: str, rules: Rules, *, a: int = 0, c: int = 0) -> Name:
    """The name with which an entry leaves a folder for another one."""
    return Name(folder, max(0, name.a + a), name.c + c, name.n + rules.raises_n)


def reclaimed_name(name: Name, rules: Rules, most_crashes: int) -> Name:
    return left_name(name, "dead" if name.c + 1 >= most_crashes else "new", rules, c=1)
