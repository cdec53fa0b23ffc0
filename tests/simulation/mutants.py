"""Planted bugs: each breaks one rule of the design, and each must be caught by some schedule.

A mutant is a list of replacements: (where, name, a function that gets what was there and returns what stands in).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from maildefer.errors import ClaimLost, LeaseFenced, raise_named
from maildefer.maildir import (
    claims,
    doubt,
    durable,
    later,
    leases,
    names,
    observer,
    operate,
    push,
    reading,
    recover,
)
from maildefer.maildir.names import EntryName
from maildefer.pool import keeper, lifeline, serving, worker
from maildefer.pool.board import Hand, Q, QueueState
from tests.simulation import workers
from tests.simulation.schedule import run

Replacement = tuple[Any, str, Callable[[Any], Any]]


@dataclass(frozen=True, slots=True)
class Mutant:
    rule: str  # what is broken
    replacements: tuple[Replacement, ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        with ExitStack() as stack:
            for where, name, make in self.replacements:
                stack.enter_context(patch.object(where, name, make(getattr(where, name))))
            yield


@dataclass(frozen=True, slots=True)
class Verdict:
    mutant_rule: str
    schedules: int
    seed: int | None  # the one that caught it
    failure: str


def judge(mutant: Mutant, first_seed: int, *, most: int, seconds: float) -> Verdict:
    """Run schedules until one fails."""
    until = time.monotonic() + seconds
    with mutant.planted():
        for number in range(most):
            result = run(first_seed + number)
            if result.failure:
                return Verdict(mutant.rule, number + 1, result.seed, result.failure)
            if time.monotonic() > until:
                break
    return Verdict(mutant.rule, number + 1, None, "")


def _one(where: Any, name: str, make: Callable[[Any], Any]) -> tuple[Replacement, ...]:
    return ((where, name, make),)


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda old: lambda *facts, **more: value


def _shared_owner(old: Any) -> Any:
    def serve_under(self: Any, lease: str) -> None:
        old(self, lease)
        self._owner = "x-1-abcd.1."

    return serve_under


def _unreturned(old: Any) -> Any:
    return lambda self, *, attempts=0, crashes=0: replace(
        old(self, attempts=attempts, crashes=crashes), returns=self.returns
    )


def _uncharged(old: Any) -> Any:
    return lambda self, owner: old(replace(self, attempts=self.attempts - 1), owner)


def _fence_by_prefix(old: Any) -> Any:
    def fence(layout: Any, lease: str, beat: int, *, system: Any) -> bool:
        now = doubt.live_leases(layout, system).get(lease, beat)
        return bool(old(layout, lease, now, system=system))

    return fence


def _one_listing(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        return set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()

    return abandoned


def _far_apart(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        missing = set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()
        if missing:
            self._system.sleep(1.5 * self.format.beat_seconds)
            missing -= doubt.live_leases(self._layout, self._system).keys()
        return missing

    return abandoned


def _once(old: Any) -> Any:
    gone: dict[int, set[str]] = {}

    def abandoned(self: Any, owners: Any) -> set[str]:
        done = gone.setdefault(id(self._watched), set())
        found = set(old(self, set(owners) - done))
        done |= found
        return found

    return abandoned


def _all_others(old: Any) -> Any:
    return lambda self, owners: set(owners) - {self._own()}


def _board_first(old: Any) -> Any:
    def scan(self: Any, taken: Any = None) -> Any:
        on = {pid: set(names) for pid, names in _held_now(self).items()}
        real = self._state_of

        def state_of(owner: Any) -> str:
            state = real(owner)
            return "alive" if state == "held" and owner.seq not in on.get(owner.pid, ()) else str(state)

        self._state_of = state_of
        try:
            return old(self, taken)
        finally:
            self._state_of = real

    return scan


def _held_now(recovery: Any) -> dict[int, set[int]]:
    board = recovery._state_of.__self__._shared.board
    found: dict[int, set[int]] = {}
    for slot in board.worker_slots():
        base = board.slot(slot)
        found.setdefault(board.words[base], set()).update(board.words[base + 16 : base + 48])
    return found


def _no_file_sync(old: Any) -> Any:
    return lambda path, chunks, *, system: old(
        path, chunks, system=replace(system, fsync=lambda descriptor: None)
    )


def _rename_first(old: Any) -> Any:
    def placed(self: Any, key: str, chunks: Any) -> bool:
        draft, system = f"{self.layout.tmp}/{key}", self._system
        try:
            descriptor = system.open(draft, durable._NEW, 0o600)
            durable.write_all(descriptor, b"".join(chunks), system)
            system.rename(draft, f"{self.layout.new}/{key}")
            system.fsync(descriptor)
            system.close(descriptor)
        except OSError as fault:
            raise_named(draft, fault)
        return True

    return placed


def _ack_first(old: Any) -> Any:
    def handle(self: Any, queue: Any, claim: Any) -> Any:
        found = claim.read(self._limit_bytes)
        claim.ack()
        return found, None, ""

    return handle


def _promote_without(old: Any) -> Any:
    return SimpleNamespace(carried=lambda entry, host, system: replace(entry, attempts=0))


def _by_destination(old: Any) -> Any:
    def move(self: Any, folder_path: str, name: str, **more: Any) -> None:
        system = self._claimer.system
        try:
            system.rename(f"{self._claimer.layout.cur}/{self.name}", f"{folder_path}/{name}")
        except OSError as fault:
            if not doubt.listed(folder_path, name, system):
                self._let_go()
                raise ClaimLost(self.name) from fault
        self._let_go()

    return move


def _no_look(old: Any) -> Any:
    def settle_by_look(self: Any, fault: OSError) -> None:
        raise LeaseFenced(self.name)

    return settle_by_look


def _impatient(old: Any) -> Any:
    return lambda self, lease, watched, now: now - watched.since >= 1.5 * self.format.beat_seconds


def _may_always(old: Any) -> Any:
    def may_claim(self: Any) -> bool:
        if self._words[self._base + Q.STATE] != QueueState.SERVED:
            return False
        self.claimer.serve_under(self._board.lease(self.index))
        return True

    return may_claim


def _from_reply(old: Any) -> Any:
    return lambda self, sent: old(self, self._system.boottime())


def _cleared_early(old: Any) -> Any:
    def move(self: Any, *where: Any, **more: Any) -> None:
        self._claimer.hand._words[self._place] = 0
        old(self, *where, **more)

    return move


def _published_late(old: Any) -> Any:
    def take(self: Any, seq: int, name: str) -> int:
        place = int(old(self, seq, name))
        self._words[place] = 0
        return place

    return take


def _published_with_claim(old: Any) -> Any:
    def begin(self: Any, claimer: Any, name: str, key: str, entry: Any, place: int, began: float) -> None:
        old(self, claimer, name, key, entry, place, began)
        owner = names.owner_of(name)
        assert owner is not None
        claimer.hand._words[place] = owner.seq

    return begin


def _same_stem(old: Any) -> Any:
    return lambda host, system: f"{int(system.time()) // 100}.{host}"


def _truncated(old: Any) -> Any:
    return lambda path, limit, *, system: old(path, limit, system=system)[:12]


def _by_stat(old: Any) -> Any:
    def listed(path: str, name: str, system: Any) -> bool:
        try:
            system.lstat(f"{path}/{name}")
        except OSError:
            return False
        return True

    return listed


def _untouched(old: Any) -> Any:
    return lambda path, system, *, touch=True: system.listdir(path)


def _requeue_same(old: Any) -> Any:
    return lambda layout, found, *, system: operate._to_new(layout, found, EntryName(key=found.key), system)


def _forgets_dead(old: Any) -> Any:
    def find_dead(self: Any) -> None:
        if getattr(self, "_asked", False):
            old(self)
        self._asked = True

    return find_dead


def _crash_free(old: Any) -> Any:
    return lambda self, name, *, charged, taken: old(self, name, charged=False, taken=taken)


def _foreign_unreturned(old: Any) -> Any:
    return SimpleNamespace(carried=lambda entry, host, system: replace(entry, returns=entry.returns - 1))


def _joined_again(old: Any) -> Any:
    return lambda self: leases.Lease.join(
        self.queue.layout, self._lease_name, self._holder(), system=self._system
    )


MUTANTS = (
    Mutant("claim: the destination is everybody's", _one(claims.Claimer, "serve_under", _shared_owner)),
    Mutant("claim: not charged", _one(EntryName, "claimed", _uncharged)),
    Mutant("claim: sent in silence", _one(serving.Serving, "may_claim", _may_always)),
    Mutant(
        "claim: published after it was sent",
        ((Hand, "take", _published_late), (claims.Claim, "__init__", _published_with_claim)),
    ),
    Mutant("return: n not raised", _one(EntryName, "returned", _unreturned)),
    Mutant("return of a mail reader's name: n not raised", _one(recover, "names", _foreign_unreturned)),
    Mutant("requeue: n not raised", _one(operate, "requeue", _requeue_same)),
    Mutant("promote: drops a field", _one(later, "names", _promote_without)),
    Mutant("settle: ENOENT taken for done", _one(claims.Claim, "_still_there", _constant(False))),
    Mutant("settle: judged by its destination", _one(claims.Claim, "_move", _by_destination)),
    Mutant("settle: cleared from the board before its reply", _one(claims.Claim, "_move", _cleared_early)),
    Mutant("settle: ack before the handler", _one(worker.Worker, "_handle", _ack_first)),
    Mutant("bury: no reason", _one(claims, "write_reason", _constant(None))),
    Mutant("read: not all bytes", _one(reading, "read_entry", _truncated)),
    Mutant("look: by stat", _one(doubt, "listed", _by_stat)),
    Mutant("look: a listing without a change of one's own", _one(doubt, "fresh_listing", _untouched)),
    Mutant("push: no sync of the directory", _one(durable.DirectorySync, "sync", _constant(None))),
    Mutant("push: no sync of the file", _one(durable, "create", _no_file_sync)),
    Mutant("push: rename before the sync", _one(push.Pusher, "_place", _rename_first)),
    Mutant("push: a doubtful rename taken for done", _one(push.Pusher, "_was_placed", _constant(True))),
    Mutant("push: keys that come back", _one(names, "fresh_stem", _same_stem)),
    Mutant("lease: a doubtful beat taken for fenced", _one(leases.Lease, "_settle_by_look", _no_look)),
    Mutant("lease: a doubtful beat taken for good", _one(leases.Lease, "_settle_by_look", _constant(None))),
    Mutant("lease: joined anew under the same name", _one(lifeline.Lifeline, "_begin", _joined_again)),
    Mutant("silence: measured from the reply", _one(lifeline.Lifeline, "_publish", _from_reply)),
    Mutant("fence: whatever beat is there", _one(leases, "fence", _fence_by_prefix)),
    Mutant("fence: before the TTL", _one(observer.Observer, "_is_over", _impatient)),
    Mutant("fence: one's own stall not minded", _one(observer.Observer, "_mind_own_stall", _constant(None))),
    Mutant("reclaim: absence from one listing", _one(observer.Observer, "abandoned", _one_listing)),
    Mutant("reclaim: two listings far apart", _one(observer.Observer, "abandoned", _far_apart)),
    Mutant("reclaim: without a fence", _one(observer.Observer, "abandoned", _all_others)),
    Mutant("reclaim: once for each lease", _one(observer.Observer, "abandoned", _once)),
    Mutant("reclaim: the crash not charged", _one(recover.Recovery, "give_back", _crash_free)),
    Mutant("audit: none", _one(recover.Recovery, "_audit", _constant(None))),
    Mutant("audit: the board read before the listing", _one(recover.Recovery, "scan", _board_first)),
    Mutant("audit: a new keeper forgets the dead", _one(keeper.Keeper, "_find_dead", _forgets_dead)),
)
assert workers  # the replacements reach the classes that it derives
