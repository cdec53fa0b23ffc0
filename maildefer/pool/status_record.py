"""The scoreboard as plain data: what `status` shows of this host, and what the keeper writes for other hosts."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from enum import IntEnum
from typing import Any, Final

from maildefer.maildir.layout import Format
from maildefer.maildir.system import boottime
from maildefer.pool.chore_faults import ChoreFaults
from maildefer.pool.context import PoolContext
from maildefer.pool.scoreboard import QueueState, Scoreboard, State
from maildefer.pool.scoreboard_views import HeaderView, QueueRecordView, SlotView

_SPAN_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 1.0
_BLOCKED_SECONDS: Final = 3.0  # an event loop that goes on says so each second
_BOOTED: Final = time.time() - boottime()


def pool_record(context: PoolContext, **more: object) -> dict[str, Any]:
    """Describe the pool. Reads memory only, so it works whatever the mounts do."""
    board, header = context.board, HeaderView(context.board)
    served = [
        QueueRecordView(board, index) for index, queue in enumerate(context.queues) if not queue.tokens_only
    ]
    return {
        "host": context.host.label,
        "pid": context.supervisor,
        "project": context.project,
        "pidfile": context.pidfile,
        "paused": bool(header.paused) or all(queue.paused for queue in served),
        "draining": bool(header.draining),
        "worker_deaths": header.deaths,
        "up_seconds": _since(header.started),
        "keeper_silent_seconds": _since(max(header.keeper_seen, header.started)),
        "scout_silent_seconds": _since(max(header.scout_seen, header.started)),
        "ttl_seconds": max(QueueRecordView(board, index).ttl_seconds for index in range(board.queues))
        or Format().ttl_seconds,
        "workers": [one for slot in context.board.worker_slots() if (one := worker_record(context, slot))],
        "queues": [queue_record(context, index) for index in range(len(context.queues))],
        **more,
    }


def _named(kind: type[IntEnum], word: int) -> str:
    """Name a word's value; "unknown" for what a broken process has written there."""
    try:
        return kind(word).name.lower()
    except ValueError:
        return "unknown"


def _since(moment: float) -> float:
    """Compute how long ago that was, on the boot clock."""
    return round(boottime() - moment, 1)


def queue_record(context: PoolContext, index: int) -> dict[str, Any]:
    """Describe one queue as this host serves it."""
    board, now = context.board, boottime()
    header, record = HeaderView(board), QueueRecordView(board, index)
    paused_for = max(0.0, record.paused_until - now)
    code = record.pause_code
    workers = [
        one
        for slot in board.worker_slots()
        if (one := worker_record(context, slot)) and one["queue_index"] == index
    ]
    return {
        "queue": context.queues[index].name,
        "path": context.queues[index].layout.path,
        "guest": context.queues[index].tokens_only,
        "host": context.host.label,
        "pid": context.supervisor,
        "state": _named(QueueState, record.state),
        "lease": board.lease(index),
        "beat_age_seconds": round(now - record.beat, 1) if record.beat else None,
        "beats": record.beats,
        "fences": record.fences,
        "reclaims": record.reclaims,
        "may_claim": record.claim_until >= now,
        "hosts": record.hosts,
        "paused": bool(header.paused or record.paused) or paused_for > 0,
        "limited": record.limited,
        "paused_everywhere": bool(record.paused),
        "paused_seconds": round(paused_for, 1),
        "paused_for": errno.errorcode.get(code, str(code)) if code and paused_for else None,
        "workers_since": _workers_since(board),
        "clock_offset_seconds": round(board.mount_time(index, wall := time.time(), now) - wall, 3),
        "faults": [asdict(fault) for fault in ChoreFaults(board, index).read_faults()],
        "workers": workers,
    }


def _workers_since(board: Scoreboard) -> float:
    """When the oldest of them began, by this host's clock at its start; now while there is none, as none was before."""
    children = (SlotView(board, slot) for slot in board.worker_slots())
    oldest = min(
        (child.started for child in children if child.is_worker and child.started), default=boottime()
    )
    return round(oldest + _BOOTED, 3)


def worker_record(context: PoolContext, slot: int) -> dict[str, Any] | None:
    """Describe one worker, and what it is on; None where the slot has none."""
    board, child = context.board, SlotView(context.board, slot)
    if not child.is_worker or not child.pid:  # it may be forked just now
        return None
    index = min(child.queue, len(context.queues) - 1)
    in_handlers = board.in_handlers(slot)
    handling = child.deadline != 0 or in_handlers > 0
    still = boottime() - child.turned if child.turned else 0.0
    return {
        "pid": child.pid,
        "state": "handling" if handling else _named(State, child.state),
        "queue": context.queues[index].name,
        "queue_index": index,
        "entry": board.name(slot) if board.holds(slot) else None,
        "handler": (board.handler(slot) or None) if handling else None,
        "seconds": round(boottime() - child.began, 3) if handling else None,
        "blocked_seconds": round(still, 3) if still > _BLOCKED_SECONDS else None,
        "gathered": board.gathered(slot),
        "in_handlers": in_handlers,
        "waits_for": child.waits_for or None,
        "handled": child.handled,
        "acked": child.acked,
        "deferred": child.deferred,
        "failed": child.failed,
        "buried": child.buried,
        "released": child.released,
        "handed_off": child.handed_off,
        "lost": child.lost,
    }


def on_claims(board: Scoreboard) -> Callable[[int, int], bool | None]:
    """Make a function that says whether a process, by its pid, is on a claim, by its SEQ, as of now.

    It returns None when no living process of that pid is here. The scoreboard is read once for any number of claims.
    """
    held: dict[int, set[int]] = {}
    living: set[int] = set()
    for slot in board.worker_slots():
        child = SlotView(board, slot)
        pid = child.pid
        held.setdefault(pid, set()).update(board.held_seqs(slot))
        if child.state <= State.BUSY:
            living.add(pid)

    def on_claim(pid: int, seq: int) -> bool | None:
        if seq in held.get(pid, ()):
            return True  # alive, or dead with its slot still to be reclaimed: the keeper is on it
        return False if pid in living else None

    return on_claim


class Rates:
    """How many messages a second a pool settles, over the last ten seconds or so.

    Used by one thread, which notes at least every few seconds.
    """

    def __init__(self, board: Scoreboard) -> None:
        self._board = board
        self._seen: dict[int, tuple[int, int]] = {}  # slot: pid, settled
        self._total = 0
        self._notes: deque[tuple[float, int]] = deque()

    def note(self, now: float) -> None:
        """Read all slots' counters; a slot that another process has got counts from zero."""
        for slot in self._board.worker_slots():
            child = SlotView(self._board, slot)
            pid, settled = child.pid, child.handled
            before_pid, before = self._seen.get(slot, (0, 0))
            self._total += settled - before if pid == before_pid and settled >= before else settled
            self._seen[slot] = (pid, settled)
        self._notes.append((now, self._total))
        while len(self._notes) > 2 and self._notes[1][0] <= now - _SPAN_SECONDS:
            self._notes.popleft()

    def noted(self, now: float) -> float | None:
        """Note, and return the rate up to now."""
        self.note(now)
        return self.per_second()

    def per_second(self) -> float | None:
        """Compute the rate; None until a second lies between two notes, since a first tenth of one says too little."""
        if len(self._notes) < 2:
            return None
        (began, first), (ended, last) = self._notes[0], self._notes[-1]
        return round((last - first) / (ended - began), 1) if ended - began >= _LEAST_SECONDS else None
