"""Workers: they claim, handle and settle, and look where a reply leaves a doubt."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explore import Step, Violation
from tests.model.server import Server
from tests.model.state import GONE, Name, Owner, Request, State, Worker, left_name


class Workers:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._rules, self._hosts = server.rules, server.setup.workers

    def steps(self, state: State, number: int) -> Iterator[Step]:
        worker, me = state.workers[number], f"worker {number}"
        idle = state.with_worker(number, Worker(seq=worker.seq))
        if worker.state == "idle" and state.hosts[self._hosts[number]].state == "up":
            yield from self._claim_steps(state, number)
        elif worker.state in ("claiming", "settling"):
            yield from self._reply_steps(state, number)
        elif worker.state == "looking":
            is_there = state.entries[worker.entry].name == worker.name
            after = _begun(state, number) if is_there else idle
            yield self._server.step(after, me, "looks for", worker.name, "there" if is_there else "not there")
            if is_there and state.budget.network:
                yield self._server.step(idle.less("network"), me, "overlooks", worker.name, is_fault=True)
        elif worker.state == "in doubt":
            yield self._server.step(idle, me, self._told(state, number))
        elif worker.state == "running":
            yield from self._settle_steps(state, number)
        if worker.is_on and state.budget.worker_kills:
            killed = state.less("worker_kills").with_worker(number, Worker("dead", worker.seq))
            yield self._server.step(killed.with_late(worker.request), me, "is killed", is_fault=True)

    def _claim_steps(self, state: State, number: int) -> Iterator[Step]:
        seq = state.workers[number].seq + 1
        owner = Owner(state.lease_of(self._hosts[number]), number, seq)
        for entry, (name, *_) in enumerate(state.entries):
            if name.folder == "new":
                target = Name(
                    "cur",
                    name.a + self._rules.charges_at_claim,
                    name.c,
                    name.n,
                    owner if self._rules.has_own_destination else None,
                )
                request = Request("claim", entry, name, target)
                claiming = Worker("claiming", seq, entry, 0, target, request)
                after = state.with_worker(number, claiming)
                yield self._server.step(after, f"worker {number}", "publishes, and sends", request)

    def _reply_steps(self, state: State, number: int) -> Iterator[Step]:
        worker = state.workers[number]
        assert worker.request is not None

        def replied(after: State, is_done: bool) -> State:
            if worker.state == "claiming":
                if is_done:
                    return _begun(after, number)
                if self._rules.looks_after_lost_claim:
                    return after.with_worker(number, worker._replace(state="looking", request=None))
            elif not is_done:
                return after.with_worker(number, worker._replace(state="in doubt"))
            return after.with_worker(number, Worker(seq=worker.seq))

        yield from self._server.request_steps(state, f"worker {number}", worker.request, replied)

    def _told(self, state: State, number: int) -> str:
        """What is told of a settle that was answered by ENOENT. Raises Violation."""
        worker = state.workers[number]
        request = worker.request
        assert request is not None
        is_lost = request.kind == "ack" or state.entries[worker.entry].name != request.target
        if self._rules.judges_settles_by_lease:
            is_lost = is_lost and not state.is_live(state.lease_of(self._hosts[number]))
        elif is_lost and request.is_done:
            raise Violation(f"S7: told as lost, and it took effect: {request}")
        if not is_lost and not request.is_done:
            raise Violation(f"S7: told as done, and it took no effect: {request}")
        return "ClaimLost" if is_lost else "settled"

    def _settle_steps(self, state: State, number: int) -> Iterator[Step]:
        worker, me, rules = state.workers[number], f"worker {number}", self._rules
        name = worker.name
        assert name is not None

        def settling(before: State, kind: str, target: Name) -> State:
            request = Request(kind, worker.entry, name, target, worker.claim)
            return before.with_worker(number, worker._replace(state="settling", request=request))

        completed = state.entries[worker.entry]._replace(is_completed=True)
        done = settling(state.with_entry(worker.entry, completed), "ack", Name(GONE))
        yield self._server.step(done, me, "has completed, and sends the ack of", name)
        if not state.budget.settles:
            return
        charged, uncharged = (0, -1) if rules.charges_at_claim else (1, 0)
        for kind, target in (
            ("settle", left_name(name, "later", rules, a=charged)),
            ("release", left_name(name, "new", rules, a=uncharged)),
            ("settle", left_name(name, "dead", rules)),
        ):
            after = settling(state.less("settles"), kind, target)
            yield self._server.step(after, me, f"sends: {kind}", name, "→", target, is_fault=True)


def _begun(state: State, number: int) -> State:
    """A handler begins."""
    worker = state.workers[number]
    entry = state.entries[worker.entry]
    running = worker._replace(state="running", claim=entry.claims, request=None)
    begun = entry._replace(starts=entry.starts + 1, has_begun=True)
    return state.with_worker(number, running).with_entry(worker.entry, begun)
