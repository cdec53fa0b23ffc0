"""Planted bugs of the pool's processes, of conversations, handoffs and `pop`; `bugs` has the queue's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from maildefer.errors import MaildeferError
from maildefer.maildir import names
from maildefer.maildir.names import EntryName, with_outputs
from maildefer.maildir.upkeep import leases
from maildefer.pool.scoreboard import QueueState, QueueWord, SlotWord
from maildefer.pool.worker import cross_device


def early_lease(old: Any) -> Any:
    """A token taken under the lease that was good before its listing."""

    def take(self: Any, conversation: str) -> bool:
        real = self._lease
        first = real()
        self._lease = lambda: first
        try:
            return bool(old(self, conversation))
        finally:
            self._lease = real

    return take


def on_its_time(old: Any) -> Any:
    return lambda self, conversation: self._take_token(conversation)


def reclaimed_anyway(old: Any) -> Any:
    def scan(self: Any) -> int:
        self._read_board = lambda: lambda owner: "alive"
        return int(old(self))

    return scan


def same_token(old: Any) -> Any:
    def free_path(path: str, taken: str) -> str:
        entry = EntryName.parse(taken)
        return f"{path}/{entry.key[:-1]}/{entry.waiting()}"

    return free_path


def handed_on(**changes: int) -> Callable[[Any], Any]:
    """A handoff that counts wrongly."""

    def make(old: Any) -> Any:
        def handoff(self: Any, other: Any, *, outputs: str = "") -> None:
            claimer = self._claimer
            entry = with_outputs(self.entry, outputs, claimer.host, claimer.system).handed_on()
            wrong = {name: max(0, getattr(entry, name) + step) for name, step in changes.items()}
            self._move(other.new, replace(entry, **wrong).waiting(), other=other)

        return handoff

    return make


def by_wall_clock(old: Any) -> Any:
    """Its offset from a wall clock that may be set before the next look, as it was when last looked at."""
    apart: dict[int, tuple[int, float]] = {}

    def mount_time(self: Any, index: int, wall: float, boot: float) -> float:
        word = self.words[self.queue(index) + QueueWord.CLOCK_OFFSET]
        seen = apart.setdefault(id(self), (word, wall - boot))
        if seen[0] != word:
            seen = apart[id(self)] = (word, wall - boot)
        return float(old(self, index, wall, boot) + (wall - boot) - seen[1])

    return mount_time


def acked_before_copied(old: Any) -> Any:
    def hand_off_copy(claim: Any, other: Any, *, host: str, outputs: Any = None) -> None:
        data, staged = claim.read(), cross_device
        claim.ack()
        staged.Pusher(other, host=host).push(lambda stem: [data])  # type: ignore[attr-defined]

    return hand_off_copy


def unlinked_by_somebody(old: Any) -> Any:
    return lambda self, *how, **more: old(self, *how, **more) or True


def refreshed_or_not(old: Any) -> Any:
    def fresh_listing(path: str, system: Any, *, touch: bool = True) -> Any:
        try:
            return old(path, system, touch=touch)
        except OSError:
            return system.listdir(path)

    return fresh_listing


def deadline_left(old: Any) -> Any:
    """A fault that comes out of a dispatch leaves the handler's deadline standing."""

    def run_handlers(self: Any, *handlers_messages_claims: Any) -> Any:
        try:
            return old(self, *handlers_messages_claims)
        except MaildeferError:
            now = self._slot.process.client.boottime()
            self._words[self._base + SlotWord.DEADLINE] = int(now * 1e9) + self._timeout_ns
            raise

    return run_handlers


def board_first(old: Any) -> Any:
    def scan(self: Any, taken: Any = None) -> Any:
        on = {pid: set(names) for pid, names in held_now(self).items()}
        real = self._look

        def look() -> Any:
            state_now = real()

            def state_of(owner: Any) -> str:
                state = state_now(owner)
                return "alive" if state == "held" and owner.seq not in on.get(owner.pid, ()) else str(state)

            return state_of

        self._look = look
        try:
            return old(self, taken)
        finally:
            self._look = real

    return scan


def held_now(reclaimer: Any) -> dict[int, set[int]]:
    board = reclaimer._look.__self__._context.board
    found: dict[int, set[int]] = {}
    for slot in board.worker_slots():
        base = board.slot(slot)
        found.setdefault(board.words[base], set()).update(board.words[base + 16 : base + 48])
    return found


def ack_first(old: Any) -> Any:
    def read(self: Any, claim: Any) -> Any:
        found = old(self, claim)
        claim.ack()
        return found

    return read


def may_always(old: Any) -> Any:
    def may_claim(self: Any) -> bool:
        if self._words[self._base + QueueWord.STATE] != QueueState.SERVED:
            return False
        self.claimer.serve_under(self._board.lease(self.index))
        return True

    return may_claim


def from_reply(old: Any) -> Any:
    return lambda self, sent: old(self, self._system.boottime())


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
        claimer.slots._words[place] = owner.seq

    return begin


def forgets_dead(old: Any) -> Any:
    def find_dead(self: Any) -> None:
        if getattr(self, "_asked", False):
            old(self)
        self._asked = True

    return find_dead


def joined_again(old: Any) -> Any:
    return lambda self: leases.Lease.join(
        self.queue.layout, self._lease_name, self._holder(), system=self._system
    )


def uncharged_deaths(old: Any) -> Any:
    """Every death taken for one outside a handler."""

    def reap(self: Any, child: Any, status: int) -> bool:
        self._slot(child).deadline = 0.0
        return bool(old(self, child, status))

    return reap


def late_beat_taken(old: Any) -> Any:
    """A successor counts from a beat that its dead predecessor may have sent."""
    return lambda self: old(self) or True


def pids_of_all(old: Any) -> Any:
    """Every holder's pids taken for this host's."""

    def is_known_dead(self: Any, holder: Any) -> bool:
        host = self._context.host
        own = replace(holder, boot_id=host.boot_id, pid_namespace=host.pid_namespace)
        return bool(old(self, own))

    return is_known_dead


def always_beating(old: Any) -> Any:
    """A keeper that looks at the others as if its own beats went well."""

    def fence(self: Any) -> None:
        self._heartbeat.last_good_beat = self._system.boottime()
        old(self)

    return fence


def dead_are_nobodys(old: Any) -> Any:
    def on_claims(board: Any) -> Any:
        on_claim = old(board)
        living = {board.words[board.slot(slot) + SlotWord.PID] for slot in board.workers()}
        return lambda pid, seq: on_claim(pid, seq) if pid in living else None

    return on_claims


def lost_race(old: Any) -> Any:
    """A look that is never made: what the reply says is believed."""
    return SimpleNamespace(DOUBTFUL=old.DOUBTFUL, is_listed=lambda path, name, system: False)


class _AlwaysMay:
    """A view of a queue that may claim, once it has a lease."""

    def __init__(self, view: Any) -> None:
        self._view = view

    def may_claim(self) -> bool:
        return bool(self._view.may_claim() or self._view.claimer.lease)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def consumer_never_asks(old: Any) -> Any:
    """A consumer that claims whatever its keeper's beats do."""

    def next_claim(self: Any) -> Any:
        view, self._view = self._view, _AlwaysMay(self._view)
        try:
            return old(self)
        finally:
            self._view = view

    return next_claim


def listing_unnamed(old: Any) -> Any:
    """A consumer that lets the fault of a listing through as it is."""

    def next_claim(self: Any) -> Any:
        if not self._view.may_claim():
            return self._restart_keeper()
        for name in self._listing.names():
            if (claim := self._claim_name(name)) is not None:
                return claim
        return None

    return next_claim
