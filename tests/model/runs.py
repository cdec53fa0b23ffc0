"""What is explored: the protocol under so many faults, and each planted weakness, which has to be found."""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.model.explore import Result, explore
from tests.model.pool import Pool
from tests.model.state import Budget, Rules, Setup


class Run(NamedTuple):
    what: str
    budget: Budget
    setup: Setup = Setup()
    rules: Rules = Rules()
    found: str = ""  # the property that has to fail
    is_deep: bool = False  # takes half a minute and more

    def explored(self) -> Result:
        return explore(Pool(self.budget, self.setup, self.rules))


_RACE: Final = Setup(audits_race=True)
_TWO_ON_ONE: Final = Setup(workers=(0, 0), audits_race=True)

HOLDS: Final = (
    Run("copies, lost replies, overlooked names", Budget(network=3), _RACE),
    Run("an owner is fenced and goes on", Budget(network=1, fences=1), _RACE),
    Run("… with more faults of the network", Budget(network=2, fences=1), is_deep=True),
    Run("… and beats between the listings", Budget(fences=1), Setup(beats=2), is_deep=True),
    Run("beats between the listings", Budget(network=1), Setup(beats=3)),
    Run("three fences", Budget(fences=3), is_deep=True),
    Run("a worker is killed", Budget(network=2, worker_kills=1)),
    Run("a worker is killed, an owner fenced", Budget(network=1, fences=1, worker_kills=1), is_deep=True),
    Run("of two workers on one host one is killed", Budget(network=2, worker_kills=1), _TWO_ON_ONE),
    Run("keeper and worker are killed", Budget(network=1, worker_kills=1, keeper_kills=1)),
    Run("two workers are killed: buried at the limit", Budget(network=1, worker_kills=2)),
    Run("deferred, released, buried, requeued", Budget(network=1, settles=2), Setup(both_promote=True)),
    Run("… while an owner is fenced", Budget(fences=1, settles=1)),
    Run("a host is lost", Budget(network=1, host_losses=1), Setup(beats=1)),
    Run("… and joins again", Budget(network=1, host_losses=1), Setup(rejoins=True)),
    Run(
        "… while a worker is killed", Budget(host_losses=1, worker_kills=1), Setup(rejoins=True), is_deep=True
    ),
    Run("a host drains, leaves, and joins again", Budget(network=1, drains=1), Setup(rejoins=True)),
    Run("a mail reader moves names", Budget(network=1, moves=2), Setup(both_promote=True)),
    Run("two entries", Budget(network=1), Setup(entries=2)),
    Run("two entries, an owner is fenced", Budget(fences=1), Setup(entries=2), is_deep=True),
    Run(
        "no look after a lost claim: the audit finds it",
        Budget(network=2, settles=1),
        rules=Rules(looks_after_lost_claim=False),
    ),
)

PLANTED: Final = (
    Run(
        "two listings any time apart",
        Budget(fences=1),
        Setup(beats=2),
        Rules(absence="two listings any time apart"),
        "S4",
    ),
    Run("a single listing", Budget(), Setup(beats=1), Rules(absence="one listing"), "S4"),
    Run(
        "leases listed before the claim was seen",
        Budget(fences=1),
        rules=Rules(reclaim="leases first"),
        found="S4",
    ),
    Run("reclaim without a fence", Budget(), rules=Rules(reclaim="without a fence"), found="S4"),
    Run("reclaim only at the fence", Budget(fences=1), rules=Rules(reclaim="at the fence"), found="L"),
    Run(
        "a fence takes any beat",
        Budget(fences=1),
        Setup(beats=1),
        Rules(fences_the_beat_seen=False),
        "S4",
    ),
    Run("all claims have one destination", Budget(), rules=Rules(has_own_destination=False), found="S2"),
    Run("n is not raised", Budget(network=1, settles=1), rules=Rules(raises_n=False), found="S3"),
    Run("a settle goes by the key", Budget(fences=1), rules=Rules(settles_by_name=False), found="S3"),
    Run("charged at the settle", Budget(worker_kills=1), rules=Rules(charges_at_claim=False), found="S6"),
    Run(
        "a new keeper does not know who died",
        Budget(worker_kills=1, keeper_kills=1),
        rules=Rules(remembers_deaths=False),
        found="S6",
    ),
    Run(
        "no audit: a dead worker's claim lands late",
        Budget(worker_kills=1),
        rules=Rules(audit="none"),
        found="L",
    ),
    Run("no audit: a claim is overlooked", Budget(network=2), rules=Rules(audit="none"), found="L"),
    Run("the audit reads the board first", Budget(), rules=Rules(audit="board, then list"), found="S2"),
    Run(
        "a mail reader's name is returned unchanged",
        Budget(network=1, moves=2),
        rules=Rules(returns_with_next_n=False),
        found="S3",
    ),
    Run(
        "a settle is judged by its destination",
        Budget(network=1, settles=1),
        rules=Rules(judges_settles_by_lease=False),
        found="S7",
    ),
    Run(
        "no look after a lost beat",
        Budget(network=1),
        Setup(beats=1),
        Rules(looks_after_lost_beat=False),
        "S8",
    ),
)
