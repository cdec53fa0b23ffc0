"""Claims, settles, leases, beats, fences, audit and reclaim, on two hosts.

Time: none. Who has seen a beat may fence it at any time later, so that no property here rests on the TTL.
Listings: a lease that a beat renames meanwhile may be missed; a name that was seen may be gone when it is acted on.

    S2  under leases that are not fenced at most one worker holds an entry, and none loses its claim
    S3  a settle takes effect only on the claim it was sent for, and no request takes effect twice
    S4  nothing is reclaimed under a live lease, and no lease is fenced that has beaten since it was seen
    S5  acked only after a handler has completed
    S6  never more handlers begin than attempts are charged, and no crash in a handler is free
    S7  a settle is told as done only if it took effect, and as lost only if it did not
    S8  an owner that takes itself for fenced is fenced
    L   from each state an end is in reach without further faults: all entries acked or buried, no dead lease left
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explore import Step
from tests.model.hosts import Hosts
from tests.model.server import Server
from tests.model.state import (
    GONE,
    HOSTS,
    LIVES,
    UNBORN,
    Budget,
    Entry,
    Host,
    Request,
    Rules,
    Setup,
    State,
    Worker,
    left_name,
)
from tests.model.workers import Workers


class Pool:
    """The model of a pool with that setup, by those rules, with so many faults."""

    def __init__(self, budget: Budget, setup: Setup, rules: Rules) -> None:
        self._server = Server(rules, setup)
        self._workers, self._hosts = Workers(self._server), Hosts(self._server)
        self.initial = State(
            entries=(Entry(),) * setup.entries,
            leases=tuple(UNBORN if lease % LIVES else 0 for lease in range(HOSTS * LIVES)),
            hosts=(Host(),) * HOSTS,
            workers=(Worker(),) * len(setup.workers),
            budget=budget,
        )

    def is_over(self, state: State) -> bool:
        """Nothing is left to be lost."""
        folders = {entry.name.folder for entry in state.entries}
        return folders <= {GONE, "dead"} and ("dead" not in folders or not state.budget.settles)

    def is_end(self, state: State) -> bool:
        if any(entry.name.folder not in (GONE, "dead") for entry in state.entries):
            return False
        return self.is_over(state) or all(
            lease == state.lease_of(lease // LIVES) and state.hosts[lease // LIVES].is_there
            for lease, beat in enumerate(state.leases)
            if beat >= 0
        )

    def steps(self, state: State) -> Iterator[Step]:
        yield from self._server.late_steps(state)
        for number in range(len(state.workers)):
            yield from self._workers.steps(state, number)
        for number in range(HOSTS):
            yield from self._hosts.steps(state, number)
        for number, (name, *_) in enumerate(state.entries):
            if name.folder == "dead" and state.budget.settles:
                target = left_name(name, "new", self._server.rules)._replace(a=0, c=0)
                yield from self._requeue_steps(state, Request("requeue", number, name, target))
            elif name.folder == "new" and state.budget.moves:
                entry = state.entries[number]._replace(name=name._replace(folder="moved"))
                moved = state.less("moves").with_entry(number, entry)
                yield self._server.step(moved, "a mail reader moves", name, is_fault=True)

    def _requeue_steps(self, state: State, request: Request) -> Iterator[Step]:
        """An operator's, of which a copy may stay under way."""
        after = self._server.carry_out(state.less("settles"), request)
        assert after is not None
        yield self._server.step(after, "operator:", request, is_fault=True)
        if state.budget.network:
            doubled = after.less("network").with_late(request._replace(is_done=True))
            yield self._server.step(doubled, "operator, a copy is under way:", request, is_fault=True)
