"""The thread that looks after one queue: dead owners' claims, due entries, requests, status, sweeps."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING

from maildefer import events
from maildefer.errors import MaildeferError
from maildefer.host.identity import alive
from maildefer.maildir import durable
from maildefer.maildir.later import Promoter
from maildefer.maildir.leases import Holder
from maildefer.maildir.names import Owner
from maildefer.maildir.observer import Observer
from maildefer.maildir.recover import OwnerState, Recovery
from maildefer.maildir.sweep import Sweeper, mount_time_offset
from maildefer.maildir.system import SYSTEM, System
from maildefer.pool import snapshot
from maildefer.pool.board import Header, Q, QueueState, S, State
from maildefer.pool.lifeline import Lifeline
from maildefer.pool.rates import Rates
from maildefer.pool.shared import Shared, send
from maildefer.pool.taken import told

if TYPE_CHECKING:
    from maildefer.maildir.freeing import Freeing

_CLOCK_EVERY_SECONDS = 60.0
_SWEEP_EVERY_SECONDS = 900.0
_CLOCK_WARNING_SECONDS = 60.0
_STATUS_EVERY_SECONDS = 30.0
_MOVING = {"beat_age_seconds", "paused_seconds"}
_VERBS = {"stop", "pause", "resume", "reload"}


class Tender:
    """What the keeper does for one queue besides beating."""

    def __init__(
        self,
        shared: Shared,
        index: int,
        lifeline: Lifeline,
        freed: Callable[[int], None],
        *,
        system: System = SYSTEM,
    ) -> None:
        self._shared = shared
        self._system = system
        self._index = index
        self._base = shared.board.queue(index)
        self._lifeline = lifeline
        self._freed = freed
        self._layout = lifeline.queue.layout
        self._name = lifeline.queue.name
        self._dead: SimpleQueue[int] = SimpleQueue()
        self._heard: SimpleQueue[str] = SimpleQueue()
        self._wake = threading.Event()
        self._promoter = Promoter(self._layout, system=system)
        self._sweeper = Sweeper(self._layout, system=system)
        self._observer = self._make_observer()
        self._recovery = self._make_recovery()
        self._rates = Rates(shared.board)
        self._scan_at = 0.0
        self._clock_at = 0.0
        self._sweep_at = self._system.boottime() + _CLOCK_EVERY_SECONDS
        self._fault = ""
        self._status: dict[str, object] = {}
        self._status_at = 0.0
        self.thread = threading.Thread(target=self._run, name=f"tend-{self._name}", daemon=True)

    def take_back(self, slot: int) -> None:
        """A worker died: take its claims back, then free its slot. Any thread."""
        self._dead.put(slot)
        self._wake.set()

    def hear(self, name: str) -> None:
        """A worker of this host has deferred an entry. Any thread."""
        self._heard.put(name)
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        lifeline = self._lifeline
        while not lifeline.left.is_set():
            if lifeline.joined.wait(0.5):
                self._round()
                self._wake.wait(self._until_next())
                self._wake.clear()
            elif self._shared.board.words[self._base + Q.STATE] != QueueState.SERVED:
                self._free_all()  # no lease, so nothing to take back under it; a new keeper just hasn't joined yet
        for path in self._status_paths():  # it may have been written after the lease was left
            durable.discard(path, self._system)

    def _round(self) -> None:
        """One look at everything that is due; a fault is told once, and met again at the next round."""
        if self._observer.format is not self._lifeline.format:  # joined anew
            self._observer = self._make_observer()
            self._recovery = self._make_recovery()
            self._scan_at = 0.0
        try:
            self._take_back_dead()
            self._mind_clock()
            self._promote()
            if self._system.boottime() >= self._scan_at:
                self._scan()
            if self._system.boottime() >= self._sweep_at:
                self._sweep_at = self._system.boottime() + _SWEEP_EVERY_SECONDS
                self._sweeper.sweep(self._mount_time())
            self._fault = ""
        except (OSError, MaildeferError) as fault:
            if str(fault) != self._fault:
                self._fault = str(fault)
                events.emit("beat.failed", queue=self._name, error=self._fault)
            self._scan_at = self._system.boottime() + self._lifeline.format.beat_seconds

    def _scan(self) -> None:
        interval = self._lifeline.format.beat_seconds
        self._scan_at = self._system.boottime() + interval
        for lease in self._observer.look(self._lifeline.last_good_beat):
            events.emit("lease.fenced", queue=self._name, lease=lease)
        with told(self._name) as taken:
            self._recovery.scan(taken)
        if (tokens := self._freeing()) is not None:
            self._tell_freed(tokens.scan())
        self._share()
        self._answer_requests()
        self._write_status()
        self._promoter.relist()
        self._promote()
        self._shared.board.words[self._base + Q.SCANS] += 1

    def _take_back_dead(self) -> None:
        while not self._dead.empty():
            slot = self._dead.get()
            board = self._shared.board
            base = board.slot(slot)
            pid, state = board.words[base + S.PID], board.words[base + S.STATE]
            if state not in (State.DEAD_CHARGED, State.DEAD_UNCHARGED):
                continue  # told twice: it may be another's by now
            try:
                with told(self._name) as taken:
                    spared = board.spared(slot, self._index)
                    charged = state == State.DEAD_CHARGED
                    self._recovery.take_back(pid, charged=charged, spared=spared, taken=taken)
                board.forget_gathered(slot, self._index)
                if (tokens := self._freeing()) is not None:
                    self._tell_freed(tokens.take_back(pid))
                    board.words[base + S.TOKENS] = 0
            except OSError:
                self._dead.put(slot)  # still to be done: the slot stays dead on the board
                raise
            self._freed(slot)

    def _free_all(self) -> None:
        while not self._dead.empty():
            slot = self._dead.get()
            if self._shared.board.words[Header.TOKENS] == self._index + 1:
                self._shared.board.words[self._shared.board.slot(slot) + S.TOKENS] = 0
            self._shared.board.forget_gathered(slot, self._index)
            self._freed(slot)

    def _promote(self) -> None:
        while not self._heard.empty():
            self._promoter.hear(self._heard.get())
        for key in self._promoter.promote(self._mount_time()):
            events.emit("entry.promoted", queue=self._name, key=key)

    def _mind_clock(self) -> None:
        if self._system.boottime() < self._clock_at:
            return
        self._clock_at = self._system.boottime() + _CLOCK_EVERY_SECONDS
        offset = mount_time_offset(self._layout, system=self._system)
        self._shared.board.set_clock_offset(self._index, offset)
        if abs(offset) > _CLOCK_WARNING_SECONDS:
            events.emit("clock.differs", queue=self._name, seconds=round(offset, 1))

    def _share(self) -> None:
        """Tell the scout which keys are this host's first: one share for each live lease that claims entries."""
        leases = [lease for lease in self._observer.others if not self._is_idle(lease)]
        own = self._lifeline.lease
        leases = sorted([*leases, own])
        words = self._shared.board.words
        words[self._base + Q.INDEX] = leases.index(own)
        words[self._base + Q.HOSTS] = len(leases)

    def _is_idle(self, lease: str) -> bool:
        """Paused, or only a guest."""
        try:
            status = json.loads(
                durable.read_small(f"{self._layout.status}/{lease}.json", system=self._system)
            )
            return bool(status.get("paused") or status.get("guest"))
        except (OSError, ValueError, AttributeError):
            return False

    def _answer_requests(self) -> None:
        """What operators asked of this lease through the mount; consumed by a rename."""
        mark = f"{self._lifeline.lease}."
        for name in self._system.listdir(self._layout.requests):
            verb = name.removeprefix(mark)
            if name.startswith(mark) and verb in _VERBS:
                try:
                    self._system.rename(
                        f"{self._layout.requests}/{name}", f"{self._layout.requests_done}/{name}"
                    )
                except FileNotFoundError:  # withdrawn
                    continue
                events.emit("request.received", queue=self._name, verb=verb)
                send(self._shared.keeper[1], request=verb)

    def _write_status(self) -> None:
        """For other hosts' operators; what has not changed is written anew twice a minute only."""
        more = {"lease": self._lifeline.lease, "rate_per_second": self._rates.noted(self._system.boottime())}
        status = snapshot.of_queue(self._shared, self._index) | more
        steady = {name: value for name, value in status.items() if name not in _MOVING}
        if steady == self._status and self._system.boottime() < self._status_at:
            return
        self._status, self._status_at = steady, self._system.boottime() + _STATUS_EVERY_SECONDS
        path, draft = self._status_paths()
        durable.discard(draft, self._system)
        data = json.dumps(status | {"time": self._system.time()}).encode()
        try:
            durable.replace_file(path, data, draft, durably=False, system=self._system)
        except FileNotFoundError:  # done, and the reply was lost; else it is written again soon
            pass

    def _status_paths(self) -> tuple[str, str]:
        lease = self._lifeline.lease
        return f"{self._layout.status}/{lease}.json", f"{self._layout.tmp}/.status-{lease}"

    def _tell_freed(self, count: int) -> None:
        if count:
            events.emit("token.freed", queue=self._name, count=count)

    def _make_observer(self) -> Observer:
        return Observer(
            self._layout,
            self._lifeline.format,
            lambda: self._lifeline.lease,
            self._is_known_dead,
            system=self._system,
        )

    def _make_recovery(self) -> Recovery:
        return Recovery(
            self._layout,
            self._observer,
            own=lambda: self._lifeline.lease,
            state_of=self._state_of,
            host=self._shared.host.label,
            max_crashes=self._shared.settings.max_crashes,
            grace_seconds=self._lifeline.format.ttl_seconds,
            system=self._system,
        )

    def _freeing(self) -> Freeing | None:
        """For the queue in which the tokens lie, from the first conversation on; else there is nothing to do."""
        if self._shared.board.words[Header.TOKENS] != self._index + 1:
            return None
        from maildefer.maildir.freeing import Freeing  # an application without conversations never needs it

        return Freeing(
            self._layout,
            self._observer,
            own=lambda: self._lifeline.lease,
            state_of=self._state_of,
            system=self._system,
        )

    def _state_of(self, owner: Owner) -> OwnerState:
        """What the board says of a claim of our own lease; read after the listing that showed it."""
        on_it = self._shared.board.on_claim(owner.pid, owner.seq)
        return "dead" if on_it is None else "held" if on_it else "alive"

    def _is_known_dead(self, holder: Holder) -> bool:
        """Dead for sure, since its pids are this host's: supervisor and keeper, whose workers die with them."""
        if not self._shared.host.shares_pids_with(holder.boot_id, holder.pid_namespace):
            return False
        return not alive(holder.pid, holder.start_time) and not alive(
            holder.keeper_pid, holder.keeper_start_time
        )

    def _mount_time(self) -> float:
        return self._system.time() + self._shared.board.clock_offset(self._index)

    def _until_next(self) -> float:
        """Seconds until something is due; woken earlier for a death or a defer of this host."""
        wait = self._scan_at - self._system.boottime()
        if (due := self._promoter.next_due()) is not None:
            wait = min(wait, due - self._mount_time())
        if self._shared.board.words[Header.DRAINING]:
            wait = min(wait, 0.2)
        return max(0.0, wait)
