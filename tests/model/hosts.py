"""Hosts: their beats, what their keepers reclaim, audit and fence; and how a host is lost, drains and joins again."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explore import Step, Violation
from tests.model.server import Server
from tests.model.state import (
    HOSTS,
    LIVES,
    Host,
    Name,
    Request,
    State,
    Task,
    Worker,
    left_name,
    put,
    reclaimed_name,
)


class Hosts:
    def __init__(self, server: Server) -> None:
        self._server, self._rules, self._setup = server, server.rules, server.setup

    def steps(self, state: State, number: int) -> Iterator[Step]:
        host, me, step = state.hosts[number], f"host {number}", self._server.step
        may_join = host.life + 1 < LIVES
        if host.state != "down" and state.budget.host_losses:
            yield step(self._stopped(state.less("host_losses"), number), me, "is lost", is_fault=True)
        if not host.is_there:
            if self._setup.rejoins and may_join:
                yield step(self._joined(state, number), me, "joins again")
            return
        if state.budget.keeper_kills:
            killed = state.less("keeper_kills").with_late(host.beat, host.task.request)
            killed = killed.with_host(number, host._replace(beat=None, is_in_doubt=False, task=Task()))
            if not self._rules.remembers_deaths:
                for worker in self._dead(state, number):
                    killed = _replaced(killed, worker)
            yield step(killed, me, "its keeper is killed, another begins", is_fault=True)
        yield from self._beat_steps(state, number)
        yield from self._keeper_steps(state, number)
        if state.budget.drains and host.state == "up":
            drained = state.less("drains").with_host(number, host._replace(state="draining"))
            yield step(drained, me, "drains", is_fault=True)

    # Beats

    def _beat_steps(self, state: State, number: int) -> Iterator[Step]:
        host, own, me = state.hosts[number], state.lease_of(number), f"host {number}"
        if host.is_in_doubt:
            assert host.beat is not None
            is_there = self._rules.looks_after_lost_beat and state.leases[own] == host.beat.target
            if not is_there and state.is_live(own):
                raise Violation(f"S8: takes itself for fenced: {host.beat}")
            beaten = state.with_host(number, host._replace(beat=None, is_in_doubt=False))
            after = beaten if is_there else self._fenced(state, number)
            yield self._server.step(after, me, "finds its beat" if is_there else "finds itself fenced")
        elif host.beat is not None:

            def replied(after: State, is_done: bool) -> State:
                now = after.hosts[number]
                new = now._replace(beat=None) if is_done else now._replace(is_in_doubt=True)
                return after.with_host(number, new)

            yield from self._server.request_steps(state, me, host.beat, replied)
        elif not state.is_live(own):
            yield self._server.step(self._fenced(state, number), me, "finds itself fenced")
        elif self._may_beat(state, own):
            beat = Request("beat", own, state.leases[own], state.leases[own] + 1)
            yield self._server.step(state.with_host(number, host._replace(beat=beat)), me, "sends", beat)

    def _may_beat(self, state: State, lease: int) -> bool:
        return state.is_live(lease) and lease % LIVES == 0 and state.leases[lease] < self._setup.beats

    def _stopped(self, state: State, number: int, new_state: str = "down") -> State:
        host = state.hosts[number]
        after = state.with_late(host.beat, host.task.request)
        for worker in self._of(number):
            was = state.workers[worker]
            after = after.with_late(was.request if was.state in ("claiming", "settling") else None)
            after = after.with_worker(worker, Worker("off", was.seq))
        return after.with_host(number, Host(new_state, host.life))

    def _joined(self, state: State, number: int) -> State:
        life = state.hosts[number].life + 1
        after = state._replace(leases=put(state.leases, number * LIVES + life, 0))
        for worker in self._of(number):
            after = _replaced(after, worker)
        return after.with_host(number, Host(life=life))

    def _fenced(self, state: State, number: int) -> State:
        """It kills its workers, and joins under a new lease."""
        stopped = self._stopped(state, number)
        return self._joined(stopped, number) if state.hosts[number].life + 1 < LIVES else stopped

    # The keeper

    def _keeper_steps(self, state: State, number: int) -> Iterator[Step]:
        match state.hosts[number].task.kind:
            case "send":
                yield from self._reply_steps(state, number)
            case "list leases":
                yield from self._listing_steps(state, number)
            case "reclaim all of a lease":
                yield from self._reclaim_all_steps(state, number)
            case "audit a name":
                yield self._audit_step(state, number)
            case "audit a worker":
                yield from self._late_audit_steps(state, number)
            case _:
                yield from self._new_task_steps(state, number)

    def _reply_steps(self, state: State, number: int) -> Iterator[Step]:
        request = state.hosts[number].task.request
        assert request is not None

        def replied(after: State, is_done: bool) -> State:
            host = after.hosts[number]._replace(task=Task())
            if request.kind == "leave":
                host = host._replace(state="left")
            if request.kind == "fence" and self._rules.reclaim == "at the fence":
                host = host._replace(task=Task("reclaim all of a lease", request.of))
            return after.with_host(number, host)

        yield from self._server.request_steps(state, f"keeper {number}", request, replied)

    def _new_task_steps(self, state: State, number: int) -> Iterator[Step]:
        host, own = state.hosts[number], state.lease_of(number)
        if dead := self._dead(state, number):
            yield from self._dead_steps(state, number, dead)
        else:
            for entry, (name, *_) in enumerate(state.entries):
                yield from self._entry_steps(state, number, entry, name)
        if self._rules.audit == "board, then list":
            for worker in self._of(number):
                if state.workers[worker].state == "idle":
                    yield self._does(state, number, Task("audit a worker", worker), "reads the board first")
        for lease in range(HOSTS * LIVES):
            if lease == own:
                continue
            if state.is_live(lease):
                owner = lease // LIVES
                lives = state.lease_of(owner) == lease and state.hosts[owner].is_there
                if state.budget.fences or not lives:
                    fence = Request("fence", lease, state.leases[lease], 99)
                    yield self._sends(state.less("fences") if lives else state, number, fence, is_fault=lives)
            elif self._rules.reclaim == "leases first":
                yield self._does(state, number, Task("reclaim all of a lease", lease), "lists leases first")
        if host.state == "draining" and not dead and host.beat is None and self._has_nothing(state, number):
            yield self._sends(state, number, Request("leave", own, state.leases[own], 99))

    def _dead_steps(self, state: State, number: int, dead: list[int]) -> Iterator[Step]:
        """Reclaim what dead workers held; who held nothing more is replaced."""
        own, most = state.lease_of(number), self._setup.most_crashes
        for worker in dead:
            held = [
                (entry, name)
                for entry, (name, *_) in enumerate(state.entries)
                if name.owner is not None and name.owner[:2] == (own, worker)
            ]
            for entry, name in held:
                target = reclaimed_name(name, self._rules, most)
                yield self._sends(state, number, Request("reclaim dead", entry, name, target))
            if not held:
                yield self._server.step(
                    _replaced(state, worker), f"keeper {number}", "replaces worker", worker
                )

    def _entry_steps(self, state: State, number: int, entry: int, name: Name) -> Iterator[Step]:
        own, rules = state.lease_of(number), self._rules
        promotes = self._setup.both_promote or number == HOSTS - 1 or state.hosts[HOSTS - 1].state != "up"
        if name.owner is not None and name.owner.lease != own:
            is_live = state.is_live(name.owner.lease)
            if rules.reclaim == "without a fence" or (rules.reclaim == "absent" and not is_live):
                yield self._sends(state, number, self._reclaim(entry, name))
            elif rules.reclaim == "absent" and self._may_beat(state, name.owner.lease):
                task = Task("list leases", entry, name, was_live=is_live)
                yield self._does(state, number, task, f"sees {name}, and lists leases")
        elif name.owner is not None and rules.audit == "list, then board":
            if self._setup.audits_race or not self._is_taken(state, number, name):
                yield self._does(state, number, Task("audit a name", entry, name), f"sees {name}")
        elif name.folder == "later" and promotes:
            yield self._sends(state, number, Request("promote", entry, name, left_name(name, "new", rules)))
        elif name.folder == "moved" and promotes:
            returned = (
                left_name(name, "new", rules) if rules.returns_with_next_n else name._replace(folder="new")
            )
            yield self._sends(state, number, Request("return", entry, name, returned))

    def _listing_steps(self, state: State, number: int) -> Iterator[Step]:
        """The end of a listing of `leases/`, which may miss a lease that was renamed meanwhile."""
        task = state.hosts[number].task
        assert task.name is not None
        assert task.name.owner is not None
        lease = task.name.owner.lease
        is_live = state.is_live(lease)
        may_miss = not task.was_live or not is_live or task.beats > task.beats_before
        if is_live:
            yield self._does(state, number, Task(), f"the listing shows L{lease}")
        if may_miss and task.listing == 1 and self._rules.absence != "one listing":
            beats = task.beats if self._rules.absence == "two listings within a beat" else 0
            second = task._replace(listing=2, was_live=is_live, beats=beats, beats_before=beats)
            yield self._does(state, number, second, f"the listing lacks L{lease}", is_fault=is_live)
        elif may_miss:
            yield self._sends(state, number, self._reclaim(task.of, task.name), is_fault=is_live)

    def _reclaim_all_steps(self, state: State, number: int) -> Iterator[Step]:
        lease = state.hosts[number].task.of
        for entry, (name, *_) in enumerate(state.entries):
            if name.owner is not None and name.owner.lease == lease:
                yield self._sends(state, number, self._reclaim(entry, name))
        yield self._does(state, number, Task(), f"sees nothing of L{lease}")

    def _audit_step(self, state: State, number: int) -> Step:
        task = state.hosts[number].task
        assert task.name is not None
        if self._is_taken(state, number, task.name):
            return self._does(state, number, Task(), "a worker is on it")
        return self._sends(state, number, self._audit(task.of, task.name))

    def _late_audit_steps(self, state: State, number: int) -> Iterator[Step]:
        own, worker = state.lease_of(number), state.hosts[number].task.of
        for entry, (name, *_) in enumerate(state.entries):
            if name.owner is not None and name.owner[:2] == (own, worker):
                yield self._sends(state, number, self._audit(entry, name))
                return
        yield self._does(state, number, Task(), "finds nothing")

    def _reclaim(self, entry: int, name: Name) -> Request:
        return Request("reclaim", entry, name, reclaimed_name(name, self._rules, self._setup.most_crashes))

    def _audit(self, entry: int, name: Name) -> Request:
        return Request("audit", entry, name, left_name(name, "new", self._rules, a=-1))

    def _sends(self, state: State, number: int, request: Request, *, is_fault: bool = False) -> Step:
        after = state.with_host(number, state.hosts[number]._replace(task=Task("send", request=request)))
        return self._server.step(after, f"keeper {number}", "sends", request, is_fault=is_fault)

    def _does(self, state: State, number: int, task: Task, what: str, *, is_fault: bool = False) -> Step:
        after = state.with_host(number, state.hosts[number]._replace(task=task))
        return self._server.step(after, f"keeper {number}", what, is_fault=is_fault)

    # What the board says

    def _of(self, number: int) -> list[int]:
        return [worker for worker, host in enumerate(self._setup.workers) if host == number]

    def _dead(self, state: State, number: int) -> list[int]:
        return [worker for worker in self._of(number) if state.workers[worker].state == "dead"]

    def _is_taken(self, state: State, number: int, name: Name) -> bool:
        """Whether a worker is on it, or what its dead worker held is still to be reclaimed."""
        for worker in self._of(number):
            one = state.workers[worker]
            if (one.is_on and one.name == name) or (
                one.state == "dead" and name.owner is not None and name.owner.worker == worker
            ):
                return True
        return False

    def _has_nothing(self, state: State, number: int) -> bool:
        own = state.lease_of(number)
        return all(state.workers[worker].state == "idle" for worker in self._of(number)) and not any(
            entry.name.owner is not None and entry.name.owner.lease == own for entry in state.entries
        )


def _replaced(state: State, worker: int) -> State:
    return state.with_worker(worker, Worker(seq=state.workers[worker].seq))
