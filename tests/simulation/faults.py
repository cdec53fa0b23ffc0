"""What goes wrong in one schedule, as plain numbers: drawn from the seed, and taken away one by one to shrink it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

_SHARED_EVERY = 3  # schedules
_LATER_SHARE = 0.3  # of schedules
_LIMITED_SHARE = 0.15  # of those on no local filesystem, as for conversations
_UNIQUE_CHANCE = 0.35
_PRIORITIES_EVERY = 5
_REQUESTS_CHANCE = 0.3
_BATCHES_SHARE = 0.25
_TOGETHER_SHARE = 0.15
_JOURNAL_SHARE = 0.15
_EFFECTS_SHARE = 0.2  # as of limits
_OUTPUTS_SHARE = 0.3
_ORDERED_SHARE = 0.5  # of local filesystems
_ONE_SYNC_SHARE = 0.7  # of those
_CONSUMERS_SHARE = 0.1
_REPLACEMENTS_SHARE = 0.2  # as of limits


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRates:
    """Chances for each request, and how often each disaster happens. All zero: a fine day."""

    hosts: int = 2
    workers: int = 2
    entries: int = 4
    seconds: float = 25.0  # of disasters; then it clears up
    latency: float = 0.002
    handling: float = 0.05  # seconds that a handler takes
    pace: float = 1.0  # seconds between a host's pushes
    gap: float = 0.0  # seconds between the two parts of a torn listing, at most
    local: bool = False  # a local filesystem, of one host
    ordered: bool = False  # that keeps the order of changes: a power cut takes the last ones, and not any
    one_sync: bool = False  # which does for a push there
    slow: float = 0.0  # the request, or its reply, takes up to the client's longest retry
    lost: float = 0.0  # the reply is lost, and the request sent again
    copied: float = 0.0  # a copy of the request is carried out late
    refused: float = 0.0  # ENOSPC, EDQUOT, EIO, ESTALE: not carried out
    untouchable: float = 0.0  # a directory's times can't be set
    doubtful: float = 0.0  # EIO, ESTALE, EINTR: carried out, or carried out late
    stale: float = 0.0  # a listing that this host has cached
    torn: float = 0.0  # a listing in two parts
    worker_deaths: int = 0
    keeper_deaths: int = 0
    host_deaths: int = 0
    freezes: int = 0
    partitions: int = 0
    restarts: int = 0  # of the server
    power_cuts: int = 0
    readers: int = 0  # mail readers that move new/X to cur/X:2,S
    operators: int = 0  # that requeue a dead letter
    pops: int = 0  # programs that take entries without a lease
    scout_deaths: int = 0
    supervisor_freezes: int = 0  # STOP for the supervisor alone
    drains: int = 0  # TERM for a supervisor; another follows
    pauses: int = 0
    clocks: int = 0  # wall clocks that somebody sets by hours
    queues: int = 1  # with two, handlers hand half of the entries on
    far: bool = False  # the second one is on another filesystem
    limits: bool = False  # at most so many handlers run at a time, and in a period
    conversations: bool = False  # messages belong to conversations, which take turns
    shared: bool = False  # with a front end of another user, the first queue
    ticks: int = 0  # seconds between the instants of a periodic task
    later: float = 0.0  # a push has a due time
    cancels: int = 0  # programs that cancel an entry, and may die at it
    reschedules: int = 0
    unique: int = 0  # so many unique keys, under one of which most entries are pushed
    pusher_deaths: int = 0
    priorities: bool = False  # entries are pushed with any of them
    requests: int = 0  # so many requests, which are made again and again in the place of most pushes
    batches: int = 0  # most messages are for a `@batch` function; 2: with one call at a time on all hosts
    together: int = 0  # so many entries are pushed at a time, most times
    consumers: int = 0  # programs that consume the first queue, each with a keeper of its own
    consumer_deaths: int = 0
    journal: bool = False  # a loss journal is kept
    effects: bool = False  # handlers have an effect that is recorded
    outputs: bool = False  # handlers send, and what they send is handled as well
    replacements: int = 0  # of folders of entries by fresh ones, as if they had grown
    paperwork: bool = False  # keepers write status files, read the others', and look for requests

    def __str__(self) -> str:
        plain = FaultRates()
        told = [f.name for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)]
        return " ".join(f"{name}={getattr(self, name):g}" for name in told) or "fine"


def forecast(seed: int) -> FaultRates:
    """Each schedule has a few kinds of trouble, not all of them: rules break where one kind is frequent."""
    random = Random(seed ^ 0xD0E)
    fault_rates = _with_unique_keys(_forecast(seed), Random(seed ^ 0x0DD))
    fault_rates = replace(fault_rates, priorities=seed % _PRIORITIES_EVERY == 0)
    fault_rates = _with_requests(fault_rates, Random(seed ^ 0xA6A))
    if fault_rates.local:
        fault_rates = replace(fault_rates, ordered=Random(seed ^ 0x0DE).random() < _ORDERED_SHARE)
        one_sync = (
            fault_rates.ordered and not fault_rates.shared and Random(seed ^ 0x15C).random() < _ONE_SYNC_SHARE
        )
        fault_rates = replace(fault_rates, one_sync=one_sync)
    if not fault_rates.local and Random(seed ^ 0x11417).random() < _LIMITED_SHARE:
        fault_rates = replace(fault_rates, limits=True)
    fault_rates = _with_batches(fault_rates, Random(seed ^ 0xBA7C))
    if Random(seed ^ 0xA11).random() < _TOGETHER_SHARE:
        fault_rates = replace(fault_rates, together=4, entries=fault_rates.entries + 4)
    chance = Random(seed ^ 0xC05)
    if not fault_rates.local and chance.random() < _CONSUMERS_SHARE:
        deaths = chance.choice((0, 1, 2))
        fault_rates = replace(fault_rates, consumers=chance.randint(1, 2), consumer_deaths=deaths)
    if not fault_rates.local and Random(seed ^ 0x10E).random() < _JOURNAL_SHARE:
        fault_rates = replace(fault_rates, journal=True)  # whose records no power cut spares
    if not fault_rates.local and Random(seed ^ 0x0CE).random() < _EFFECTS_SHARE:
        fault_rates = replace(fault_rates, effects=True)
    if Random(seed ^ 0x0B0).random() < _OUTPUTS_SHARE:
        fault_rates = replace(fault_rates, outputs=True)
    chance = Random(seed ^ 0x620)
    if not fault_rates.local and chance.random() < _REPLACEMENTS_SHARE:
        fault_rates = replace(fault_rates, replacements=chance.randint(10, 60))
    if random.random() > _LATER_SHARE:
        return fault_rates
    cancels, reschedules = (random.randint(1, 3) if random.random() < 0.5 else 0 for _ in range(2))
    return replace(fault_rates, later=random.choice((0.5, 1.0)), cancels=cancels, reschedules=reschedules)


def _with_unique_keys(fault_rates: FaultRates, random: Random) -> FaultRates:
    """Drawn by itself, so that all else is as it was without them."""
    if random.random() > _UNIQUE_CHANCE:
        return fault_rates
    return replace(
        fault_rates,
        unique=random.choice((1, 1, 2)),
        entries=fault_rates.entries + random.randint(2, 8),
        pusher_deaths=random.choice((0, 1, 3)),
    )


def _with_requests(fault_rates: FaultRates, random: Random) -> FaultRates:
    """The same."""
    if random.random() > _REQUESTS_CHANCE:
        return fault_rates
    return replace(
        fault_rates,
        requests=random.choice((1, 2, 3)),
        entries=fault_rates.entries + random.randint(3, 10),
        pusher_deaths=max(fault_rates.pusher_deaths, random.choice((0, 2, 4))),
    )


def _with_batches(fault_rates: FaultRates, random: Random) -> FaultRates:
    if fault_rates.conversations or fault_rates.limits or random.random() > _BATCHES_SHARE:
        return fault_rates
    batches = 1 if fault_rates.local else random.choice((1, 2))  # the model of power knows no renamed folders
    return replace(
        fault_rates,
        batches=batches,
        workers=2,
        entries=fault_rates.entries + 4,
        pace=0.2,
        handling=random.choice((0.5, 3.0)),
    )


def _forecast(seed: int) -> FaultRates:
    random = Random(seed ^ 0x5EED)

    def chance(often: float, most: float) -> float:
        return round(random.uniform(0.1, 1.0) * most, 3) if random.random() < often else 0.0

    def times(often: float, most: int) -> int:
        return random.randint(1, most) if random.random() < often else 0

    shared = seed % _SHARED_EVERY == 0
    kind = random.random()
    for until, special in ((0.04, _haze), (0.06, _fog), (0.08, _headless), (0.11, _dark)):
        if kind < until:
            return replace(special(random), shared=shared)
    local = random.random() < 0.15
    fault_rates = FaultRates(
        hosts=1 if local else random.choice((2, 2, 3)),
        workers=random.choice((1, 2, 2)),
        entries=random.randint(1, 6),
        seconds=random.uniform(3, 9) if random.random() < 0.7 else random.uniform(9, 25),
        latency=random.choice((0.0005, 0.005, 0.05)),
        handling=random.choice((0.05, 0.5, 3.0)),
        local=local,
        slow=chance(0.5, 0.1),
        refused=chance(0.3, 0.05),
        worker_deaths=times(0.5, 4),
        keeper_deaths=times(0.4, 3),
        host_deaths=times(0.3, 2),
        freezes=times(0.4, 2),
        power_cuts=times(0.9, 2) if local else 0,
        readers=times(0.2, 2),
        operators=times(0.3, 2),
        pops=times(0.15, 3),
        scout_deaths=times(0.15, 2),
        supervisor_freezes=times(0.1, 2),
        drains=times(0.15, 2),
        pauses=times(0.05, 2),
        queues=2 if random.random() < 0.12 else 1,
        far=random.random() < 0.4,
        shared=shared,
        conversations=not local and random.random() < 0.15,  # the model of power knows no renamed folders
        paperwork=random.random() < 0.15,
    )
    if local:
        return fault_rates
    return replace(
        fault_rates,
        lost=chance(0.5, 0.15),
        copied=chance(0.5, 0.15),
        doubtful=chance(0.4, 0.08),
        stale=chance(0.5, 0.8),
        untouchable=chance(0.1, 0.8),
        torn=chance(0.6, 0.8),
        gap=random.choice((0.0, 0.1, 0.6)),
        partitions=times(0.25, 2),
        restarts=times(0.25, 2),
        clocks=times(0.2, 2),
        ticks=random.choice((1, 2, 3))
        if random.random() < 0.25
        else 0,  # as for conversations, on no local one
    )


def _haze(random: Random) -> FaultRates:
    """No disaster, long handlers, and no listing that can be trusted: a beat falls into every second one."""
    return FaultRates(
        hosts=3,
        workers=random.choice((1, 2)),
        entries=random.randint(3, 6),
        seconds=random.uniform(12, 20),
        handling=8.0,
        torn=1.0,
        gap=1.0,
        paperwork=False,
    )


def _fog(random: Random) -> FaultRates:
    """Hosts come and go, replies are lost, and no look can refresh what it looks at."""
    return FaultRates(
        hosts=3,
        entries=random.randint(3, 6),
        seconds=random.uniform(6, 15),
        handling=random.choice((0.5, 3.0)),
        lost=0.2,
        doubtful=0.1,
        stale=0.9,
        untouchable=0.9,
        host_deaths=random.randint(1, 3),
        keeper_deaths=random.randint(0, 1),
    )


def _headless(random: Random) -> FaultRates:
    """Supervisors are stopped while there is work for a long time."""
    return FaultRates(
        hosts=random.choice((1, 2)),
        workers=random.choice((1, 2)),
        entries=random.randint(5, 8),
        seconds=random.uniform(8, 16),
        pace=2.5,
        supervisor_freezes=random.randint(1, 2),
        worker_deaths=random.randint(0, 2),
    )


def _dark(random: Random) -> FaultRates:
    """The power goes while there is much to push."""
    return FaultRates(
        hosts=1,
        workers=random.choice((1, 2)),
        local=True,
        entries=random.randint(5, 9),
        pace=0.2,
        seconds=random.uniform(2, 5),
        latency=0.05,
        refused=random.choice((0.0, 0.05)),
        power_cuts=random.randint(2, 4),
    )


def simpler(fault_rates: FaultRates) -> list[FaultRates]:
    """The same with one trouble less, for shrinking."""
    plain = FaultRates()
    found = []
    for field in fields(fault_rates):
        value = getattr(fault_rates, field.name)
        if field.name in (
            "hosts",
            "workers",
            "local",
            "latency",
            "seconds",
            "handling",
            "pace",
            "gap",
            "far",
        ):
            continue
        least = 1 if field.name in ("entries", "queues") else getattr(plain, field.name)
        if value != least:
            found.append(_with(fault_rates, field.name, least))
            if isinstance(value, int) and value > least + 1:
                found.append(_with(fault_rates, field.name, value - 1))
    if fault_rates.workers > 1:
        found.append(replace(fault_rates, workers=1))
    return found


def _with(fault_rates: FaultRates, name: str, value: Any) -> FaultRates:
    return replace(fault_rates, **{name: value})
