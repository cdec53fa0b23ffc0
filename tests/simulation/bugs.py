"""The planted bugs themselves: each function gets what is there and returns what is to stand in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from maildefer.errors import ClaimLost, LeaseFenced, raise_named
from maildefer.maildir import (
    doubt,
    durable,
    leases,
    names,
    operate,
)
from maildefer.maildir.names import EntryName
from maildefer.pool.board import Q, QueueState, S


def constant(value: Any) -> Callable[[Any], Any]:
    return lambda old: lambda *facts, **more: value


def shared_owner(old: Any) -> Any:
    def serve_under(self: Any, lease: str) -> None:
        old(self, lease)
        self._owner = "x-1-abcd.1."

    return serve_under


def unreturned(old: Any) -> Any:
    return lambda self, *, attempts=0, crashes=0: replace(
        old(self, attempts=attempts, crashes=crashes), returns=self.returns
    )


def uncharged(old: Any) -> Any:
    return lambda self, owner: old(replace(self, attempts=self.attempts - 1), owner)


def fence_by_prefix(old: Any) -> Any:
    def fence(layout: Any, lease: str, beat: int, *, system: Any) -> bool:
        now = doubt.live_leases(layout, system).get(lease, beat)
        return bool(old(layout, lease, now, system=system))

    return fence


def one_listing(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        return set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()

    return abandoned


def far_apart(old: Any) -> Any:
    def abandoned(self: Any, owners: Any) -> set[str]:
        missing = set(owners) - {self._own()} - doubt.live_leases(self._layout, self._system).keys()
        if missing:
            self._system.sleep(1.5 * self.format.beat_seconds)
            missing -= doubt.live_leases(self._layout, self._system).keys()
        return missing

    return abandoned


def once(old: Any) -> Any:
    gone: dict[int, set[str]] = {}

    def abandoned(self: Any, owners: Any) -> set[str]:
        done = gone.setdefault(id(self._watched), set())
        found = set(old(self, set(owners) - done))
        done |= found
        return found

    return abandoned


def all_others(old: Any) -> Any:
    return lambda self, owners: set(owners) - {self._own()}


def board_first(old: Any) -> Any:
    def scan(self: Any, taken: Any = None) -> Any:
        on = {pid: set(names) for pid, names in held_now(self).items()}
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


def held_now(recovery: Any) -> dict[int, set[int]]:
    board = recovery._state_of.__self__._shared.board
    found: dict[int, set[int]] = {}
    for slot in board.worker_slots():
        base = board.slot(slot)
        found.setdefault(board.words[base], set()).update(board.words[base + 16 : base + 48])
    return found


def no_file_sync(old: Any) -> Any:
    return lambda path, chunks, *, system: old(
        path, chunks, system=replace(system, fsync=lambda descriptor: None)
    )


def rename_first(old: Any) -> Any:
    def placed(self: Any, key: str, chunks: Any) -> bool:
        draft, system = f"{self.layout.tmp}/{key}", self._system
        try:
            descriptor = system.open(draft, durable.NEW, 0o600)
            durable.write_all(descriptor, b"".join(chunks), system)
            system.rename(draft, f"{self.layout.new}/{key}")
            system.fsync(descriptor)
            system.close(descriptor)
        except OSError as fault:
            raise_named(draft, fault)
        return True

    return placed


def ack_first(old: Any) -> Any:
    def handle(self: Any, queue: Any, claim: Any) -> Any:
        found = claim.read(self._limit_bytes)
        claim.ack()
        return found, None, ""

    return handle


def promote_without(old: Any) -> Any:
    return SimpleNamespace(carried=lambda entry, host, system: replace(entry, attempts=0))


def by_destination(old: Any) -> Any:
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


def no_look(old: Any) -> Any:
    def settle_by_look(self: Any, fault: OSError) -> None:
        raise LeaseFenced(self.name)

    return settle_by_look


def impatient(old: Any) -> Any:
    return lambda self, lease, watched, now: now - watched.since >= 1.5 * self.format.beat_seconds


def may_always(old: Any) -> Any:
    def may_claim(self: Any) -> bool:
        if self._words[self._base + Q.STATE] != QueueState.SERVED:
            return False
        self.claimer.serve_under(self._board.lease(self.index))
        return True

    return may_claim


def from_reply(old: Any) -> Any:
    return lambda self, sent: old(self, self._system.boottime())


def cleared_early(old: Any) -> Any:
    def move(self: Any, *where: Any, **more: Any) -> None:
        self._claimer.hand._words[self._place] = 0
        old(self, *where, **more)

    return move


def published_late(old: Any) -> Any:
    def take(self: Any, seq: int, name: str) -> int:
        place = int(old(self, seq, name))
        self._words[place] = 0
        return place

    return take


def published_with_claim(old: Any) -> Any:
    def begin(self: Any, claimer: Any, name: str, key: str, entry: Any, place: int, began: float) -> None:
        old(self, claimer, name, key, entry, place, began)
        owner = names.owner_of(name)
        assert owner is not None
        claimer.hand._words[place] = owner.seq

    return begin


def same_stem(old: Any) -> Any:
    return lambda host, system: f"{int(system.time()) // 100}.{host}"


def truncated(old: Any) -> Any:
    return lambda path, limit, *, system: old(path, limit, system=system)[:12]


def by_stat(old: Any) -> Any:
    def listed(path: str, name: str, system: Any) -> bool:
        try:
            system.lstat(f"{path}/{name}")
        except OSError:
            return False
        return True

    return listed


def untouched(old: Any) -> Any:
    return lambda path, system, *, touch=True: system.listdir(path)


def requeue_same(old: Any) -> Any:
    return lambda layout, found, *, system: operate._to_new(layout, found, EntryName(key=found.key), system)


def forgets_dead(old: Any) -> Any:
    def find_dead(self: Any) -> None:
        if getattr(self, "_asked", False):
            old(self)
        self._asked = True

    return find_dead


def crash_free(old: Any) -> Any:
    return lambda self, name, *, charged, taken: old(self, name, charged=False, taken=taken)


def foreign_unreturned(old: Any) -> Any:
    return SimpleNamespace(carried=lambda entry, host, system: replace(entry, returns=entry.returns - 1))


def joined_again(old: Any) -> Any:
    return lambda self: leases.Lease.join(
        self.queue.layout, self._lease_name, self._holder(), system=self._system
    )


def never_buried(old: Any) -> Any:
    def give_back(self: Any, name: str, *, charged: bool, taken: Any) -> None:
        self._max_crashes = 99
        old(self, name, charged=charged, taken=taken)

    return give_back


def uncharged_deaths(old: Any) -> Any:
    """Every death taken for one outside a handler."""

    def bury(self: Any, child: Any, status: int) -> bool:
        self._words[self._board.slot(child.slot) + S.DEADLINE] = 0
        return bool(old(self, child, status))

    return bury


def late_beat_taken(old: Any) -> Any:
    """A successor counts from a beat that its dead predecessor may have sent."""
    return lambda self: old(self) or True
