"""Server and network: requests take effect at once and as a whole, late, twice, or unknown to who has sent them.

There is no cache of replies: with one, fewer things may happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.model.explore import Step, Violation
from tests.model.state import (
    FENCED,
    GONE,
    LEFT,
    OF_LEASES,
    SETTLES,
    Name,
    Request,
    Rules,
    Setup,
    State,
    Task,
    put,
)


class Server:
    def __init__(self, rules: Rules, setup: Setup) -> None:
        self.rules, self.setup = rules, setup

    def late_steps(self, state: State) -> Iterator[Step]:
        for request in state.late:
            if (after := self.carry_out(state, request)) is not None:
                late = frozenset(other for other in after.late if not other.is_copy_of(request))
                yield self.step(after._replace(late=late), "late:", request, is_fault=True)

    def request_steps(
        self, state: State, who: str, request: Request, replied: Callable[[State, bool], State]
    ) -> Iterator[Step]:
        """Carry out a request whose sender waits for the reply; the network may do a fault of its own to it."""
        after = self.carry_out(state, request)
        is_done = after is not None
        yield self.step(replied(after or state, is_done), who, request, "done" if is_done else "ENOENT")
        if not state.budget.network:
            return
        if after is not None:
            lost = after.less("network")
            yield self.step(lost, who, request, "done; the reply is lost, it is sent again", is_fault=True)
        if request not in state.late:
            doubled = state.less("network").with_late(request)
            yield self.step(doubled, who, request, "a copy is under way", is_fault=True)

    def carry_out(self, state: State, request: Request) -> State | None:
        """Return the state after it, or None if its source is gone. Raises Violation."""
        if not self._is_possible(state, request):
            return None
        if request.is_done:
            raise Violation(f"S3: takes effect twice: {request}")
        after = (self._change_lease if request.kind in OF_LEASES else self._move)(state, request)
        return _with_copies_done(after, request)

    def _is_possible(self, state: State, request: Request) -> bool:
        if request.kind in OF_LEASES:
            beat = state.leases[request.of]
            takes_any = request.kind == "fence" and not self.rules.fences_the_beat_seen
            return beat == request.source or (takes_any and beat >= 0)
        name = state.entries[request.of].name
        takes_claimed = request.kind in SETTLES and not self.rules.settles_by_name
        return name == request.source or (takes_claimed and name.folder == "cur")

    def _change_lease(self, state: State, request: Request) -> State:
        lease, beat = request.of, state.leases[request.of]
        if request.kind == "fence" and beat != request.source:
            raise Violation(f"S4: has beaten since it was seen: {request}")
        new = {"beat": beat + 1, "fence": FENCED, "leave": LEFT}[request.kind]
        after = state._replace(leases=put(state.leases, lease, new))
        if request.kind != "beat":
            return after
        for number, host in enumerate(after.hosts):
            task = host.task
            if (
                task.kind == "list leases"
                and task.name
                and task.name.owner
                and task.name.owner.lease == lease
            ):
                task = task._replace(beats=task.beats + 1)
                if task.beats == 2 and self.rules.absence == "two listings within a beat":
                    task = Task()  # they have taken longer than that
                after = after.with_host(number, host._replace(task=task))
        return after

    def _move(self, state: State, request: Request) -> State:
        entry = state.entries[request.of]
        assert isinstance(request.target, Name)
        if request.kind == "claim":
            entry = entry._replace(claims=entry.claims + 1, has_begun=False)
        elif request.kind in SETTLES:
            if request.kind == "ack" and not entry.is_completed:
                raise Violation(f"S5: no handler has completed: {request}")
            if request.claim != entry.claims:
                raise Violation(f"S3: takes effect on a later claim: {request}")
            if request.kind == "release" and entry.starts:
                entry = entry._replace(starts=entry.starts - 1)
        elif request.kind == "reclaim":
            if entry.name.owner is not None and state.is_live(entry.name.owner.lease):
                raise Violation(f"S4: under a live lease: {request}")
        elif request.kind == "audit":
            is_held = any(worker.is_on and worker.name == request.source for worker in state.workers)
            if entry.has_begun and not is_held:
                raise Violation(f"S6: a crash in a handler is free: {request}")
        elif request.kind == "requeue":
            entry = entry._replace(starts=0)
        return state.with_entry(request.of, entry._replace(name=request.target))

    # What holds in every state

    def step(self, state: State, *told: object, is_fault: bool = False) -> Step:
        """Return a step to that state. Raises Violation."""
        held = set()
        for number, worker in enumerate(state.workers):
            request = worker.request
            believes = worker.state == "running" or (
                worker.state == "settling" and request is not None and not request.is_done
            )
            if not believes or not state.is_live(state.lease_of(self.setup.workers[number])):
                continue
            if worker.entry in held:
                raise Violation("S2: two workers with live leases hold one entry")
            held.add(worker.entry)
            if state.entries[worker.entry].name != worker.name and self.rules.settles_by_name:
                raise Violation(f"S2: a worker with a live lease has lost {worker.name}")
        for entry in state.entries:
            if entry.name.folder != GONE and entry.starts > entry.name.a:
                raise Violation(f"S6: {entry.starts} handlers have begun with {entry.name}")
        return Step(state, told, is_fault)


def _with_copies_done(state: State, request: Request) -> State:
    """Note on each copy that is under way, or that its sender may send again, that it has taken effect."""

    def noted(other: Request | None) -> Request | None:
        return other._replace(is_done=True) if other is not None and other.is_copy_of(request) else other

    hosts = tuple(
        host._replace(beat=noted(host.beat), task=host.task._replace(request=noted(host.task.request)))
        for host in state.hosts
    )
    workers = tuple(worker._replace(request=noted(worker.request)) for worker in state.workers)
    late = frozenset(
        other._replace(is_done=True) if other.is_copy_of(request) else other for other in state.late
    )
    return state._replace(hosts=hosts, workers=workers, late=late)
