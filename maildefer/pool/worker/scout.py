"""The scout: the only process of a host that lists `new/`; it offers names to the workers.

Memory stays flat whatever the backlog: `new/` is read lazily, and one pass over a million entries serves a million
claims. Each queue has its thread, since each mount may hang by itself.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NoReturn

from maildefer import events
from maildefer.host.linux.directory_watch import DirectoryWatch
from maildefer.host.linux.process_title import set_title
from maildefer.host.linux.readiness import await_readable, await_writable
from maildefer.maildir import scan
from maildefer.maildir.system import boottime
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import Header, QueueState, QueueWord, Scoreboard, SlotWord, State
from maildefer.pool.worker.offers import MOST_NAMES, MOST_SHORT, keep_short, pack, share_of

_IDLE, _SERVED = int(State.IDLE), int(QueueState.SERVED)
SLICE_SECONDS = 0.005  # an offer holds no more than a worker handles in this time
REMEMBER_SECONDS = 1.0
_REMEMBERED = 8192
_SIGN_SECONDS = 2.0
_SHORTEST_WAIT, _LONGEST_WAIT = 0.05, 1.0
_LONGEST_LOCAL_WAIT = 5.0  # where every writer goes through this kernel, and so through inotify
_MAY_NOT_OFFER_SECONDS = 0.1
_TOUCH_SECONDS = 5.0  # an NFSv3 client's stale listing lasts until the directory changes


def run(shared: PoolContext) -> NoReturn:
    """Run a scout in its own process."""
    set_title(f"scout {' '.join(queue.name for queue in shared.queues)}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.excepthook = _end_with_thread
    scouts = [QueueScout(shared, index) for index, queue in enumerate(shared.queues) if not queue.tokens_only]
    for scout in scouts:
        threading.Thread(target=scout.serve, name=f"scout-{scout.name}", daemon=True).start()
    while True:  # a sign of life, also while a mount hangs; a scout that dies again and again gives none
        time.sleep(_SIGN_SECONDS)
        shared.board.words[Header.SCOUT] = time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _end_with_thread(failure: threading.ExceptHookArgs) -> None:
    """End the scout that has lost the thread of a queue; its successor serves all queues."""
    threading.__excepthook__(failure)
    os._exit(1)


class QueueScout:
    """Offers the names of one queue, by priority, and the oldest first as far as a slice of the listing tells."""

    def __init__(self, shared: PoolContext, index: int) -> None:
        self.name = shared.queues[index].name
        self._layout = shared.queues[index].layout
        self._board = shared.board
        self._words = shared.board.words
        self._base = shared.board.queue(index)
        self._socket: socket.socket = shared.offers[index][0]
        self._gate = shared.not_paused
        self._watch = DirectoryWatch(self._layout.new)
        self._missing_watch = ""
        self._memory = OfferMemory()
        self._pace = OfferPace(shared.board)
        self._deaths = 0
        self._steals: set[int | None] = set()  # the ranks whose listings offer other hosts' shares
        self._by_priority: scan.NamesByPriority | None = None  # once any entry had a priority
        self._wait_seconds = _SHORTEST_WAIT
        self._touched_at = 0.0

    def serve(self) -> None:
        """Pass over the listing, then sleep until an entry comes or may have come, for ever."""
        reported = ""
        while True:
            if not self._may_offer():
                self._wait_until_allowed()
                continue
            try:
                self._pass()
                self._wait_for_entries()
                reported = ""
            except OSError as fault:
                if str(fault) != reported:
                    reported = str(fault)
                    events.emit("scan.failed", queue=self.name, error=reported)
                time.sleep(_LONGEST_WAIT)

    def _pass(self) -> None:
        """Offer what the listing shows: this host's share, and where it has none of that, the other hosts' shares.

        After a pass that met none of its own share, the next one offers all shares as it reads: else each pass over a
        backlog of hosts that claim nothing would serve one slice of it.
        """
        self._forget_after_deaths()
        any_shown = False
        for names in () if self._by_priority else self._listed():
            any_shown |= bool(names)
            self._offer(names)
            if not self._may_offer():
                return
        if self._by_priority is not None:
            any_shown |= self._offer_by_priority(self._by_priority, look=True)
        longer = min(self._wait_seconds * 2, self._longest_wait())
        self._wait_seconds = _SHORTEST_WAIT if any_shown else longer

    def _listed(self, rank: int | None = None) -> Iterator[list[str]]:
        """What a listing shows, of one rank or of all; none of it where priorities turn out to be in use."""
        steals, offered, others = rank in self._steals, False, list[str]()
        for chunk in scan.chunks(self._layout.new, only=rank):
            if rank is None and self._with_priorities(chunk):
                return
            mine, theirs = self._split(chunk)
            mine = self._memory.unknown(mine, boottime())
            offered |= bool(mine)
            yield mine
            if steals:
                theirs = self._memory.unknown(theirs, boottime())
                yield theirs
            if not others and (steals or not offered):
                others = theirs
        if not offered and not steals:
            others = self._memory.unknown(others, boottime())
            yield others
        (self._steals.add if others and not offered else self._steals.discard)(rank)

    def _with_priorities(self, names: Sequence[str] = ()) -> scan.NamesByPriority | None:
        """The order of offers once entries have priorities, by the queue's mark or by these names; else None."""
        marked = self._words[self._base + QueueWord.PRIORITIES]
        if self._by_priority is None and (marked or scan.any_priority(names)):
            self._by_priority = scan.NamesByPriority(self._listed, boottime)
            self._memory.clear()  # of names that are not offered after all
            keep_short(self._socket)
        return self._by_priority

    def _offer_by_priority(self, names: scan.NamesByPriority, *, look: bool) -> bool:
        """Offer what comes next whenever a worker has room for it, until nothing is left; whether there was any."""
        offered = None
        while self._may_offer():
            if self._has_room():
                self._forget_after_deaths()
                names.add(self._memory.unknown(sorted(self._watch.wait(0.0)), boottime()))
                following = names.take(min(self._pace.names_per_offer(), MOST_SHORT), look=look)
                if not following:
                    break
                offered = self._socket.send(pack(following))
        return offered is not None

    def _has_room(self) -> bool:
        """Wait until at most one offer waits for a worker; False after a while, to look at the pool's state."""
        return await_writable(self._socket, _LONGEST_WAIT)

    def _longest_wait(self) -> float:
        """The longest sleep between listings: longer where inotify reports all writers, all being on this host."""
        hears_all = self._words[self._base + QueueWord.LOCAL] and not self._watch.missing
        return _LONGEST_LOCAL_WAIT if hears_all else _LONGEST_WAIT

    def _log_whether_watched(self) -> None:
        """Log once that inotify can't be had, and once that it can again."""
        if (missing := self._watch.missing) != self._missing_watch:
            self._missing_watch = missing
            if missing:
                reason = (
                    f"no inotify watch ({missing}): entries are found up to {_LONGEST_WAIT:g} s late; raise "
                )
                reason += "fs.inotify.max_user_instances and max_user_watches (sysctl)"
                events.emit("queue.unwatched", queue=self.name, reason=reason)
            else:
                events.emit("queue.watched", queue=self.name)

    def _wait_for_entries(self) -> None:
        """Wait for events of local writers, which name the entries, or until the next listing shows other hosts'."""
        listed_at = boottime()
        names = self._watch.wait(self._wait_seconds)
        self._log_whether_watched()
        while names and self._may_offer():
            fresh = self._memory.unknown(sorted(names), boottime())
            if (by_priority := self._with_priorities(fresh)) is None:
                self._offer(fresh)
            else:
                by_priority.add(fresh)
                self._offer_by_priority(by_priority, look=False)
            self._wait_seconds = _SHORTEST_WAIT
            if boottime() - listed_at > REMEMBER_SECONDS:  # time to list again, however busy the writers are
                return
            names = self._watch.wait(self._wait_seconds)
        if boottime() - self._touched_at > _TOUCH_SECONDS:
            self._touched_at = boottime()
            self._watch.look_again()
            if not self._words[self._base + QueueWord.LOCAL]:
                self._watch.touch()

    def _offer(self, names: list[str]) -> None:
        """Write the names to the workers' socket; a full socket holds the scout up, as it should."""
        start = 0
        while start < len(names) and not self._with_priorities():
            count = self._pace.names_per_offer()
            self._socket.send(pack(names[start : start + count]))
            start += count

    def _may_offer(self) -> bool:
        words, base = self._words, self._base
        return (
            words[base + QueueWord.STATE] == _SERVED
            and not words[Header.PAUSED]
            and not words[Header.DRAINING]
            and not words[base + QueueWord.PAUSED]
            and words[base + QueueWord.PAUSED_UNTIL] <= boottime() * 1e9
        )

    def _wait_until_allowed(self) -> None:
        """Wait until entries may be offered: while the pool is paused, for the gate; else (lease, fault) a moment."""
        if self._words[Header.PAUSED]:
            await_readable(self._gate)
        else:
            time.sleep(_MAY_NOT_OFFER_SECONDS)

    def _split(self, names: list[str]) -> tuple[list[str], list[str]]:
        """Split names into this host's share, by the keys' hash, and the others', where each host begins elsewhere.

        So those that have nothing left of their own do not all claim the same entries.
        """
        hosts = self._words[self._base + QueueWord.HOSTS]
        if hosts <= 1:
            return names, []
        index = self._words[self._base + QueueWord.INDEX]
        mine: list[str] = []
        theirs: list[str] = []
        for name in names:
            (mine if share_of(name, hosts) == index else theirs).append(name)
        first = len(theirs) * index // hosts
        return mine, theirs[first:] + theirs[:first]

    def _forget_after_deaths(self) -> None:
        if (deaths := self._words[Header.DEATHS]) != self._deaths:
            self._deaths = deaths
            self._memory.clear()


class OfferMemory:
    """The names that were offered within the last second; bounded, since older ones were taken or are worth another."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()

    def unknown(self, names: list[str], now: float) -> list[str]:
        """The names that were not offered lately; they are remembered from now on."""
        order, known = self._order, self._names
        while order and (order[0][0] < now - REMEMBER_SECONDS or len(order) > _REMEMBERED):
            known.discard(order.popleft()[1])
        fresh = [name for name in names if name not in known] if known else names
        for name in fresh[-_REMEMBERED:]:
            known.add(name)
            order.append((now, name))
        return fresh

    def clear(self) -> None:
        self._names.clear()
        self._order.clear()


class OfferPace:
    """How many names an offer carries: one while any worker is idle, else as many as a worker handles in 5 ms."""

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._measured_at = 0.0
        self._handled = 0
        self._per_slice = 1
        self._workers: list[int] = []

    def names_per_offer(self) -> int:
        """Called for each offer, so it looks only at the workers that lived at the last measurement."""
        words, now = self._board.words, boottime()
        if now - self._measured_at >= SLICE_SECONDS:
            self._measure(now)
        for base in self._workers:
            if words[base + SlotWord.STATE] == _IDLE:
                return 1
        return self._per_slice

    def _measure(self, now: float) -> None:
        words = self._board.words
        self._workers = [self._board.slot(slot) for slot in self._board.workers()]
        handled = sum(words[base + SlotWord.HANDLED] + words[base + SlotWord.TAKEN] for base in self._workers)
        rate = max(0, handled - self._handled) / (now - self._measured_at) / max(len(self._workers), 1)
        self._per_slice = max(1, min(int(rate * SLICE_SECONDS), MOST_NAMES))
        self._measured_at, self._handled = now, handled
