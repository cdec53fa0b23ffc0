"""The board in words: what `status` shows of this host, and what the keeper leaves on the mount for other hosts."""

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
from maildefer.pool.scoreboard import Header, ProcessKind, Q, QueueState, S, Scoreboard, State

_SPAN_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 1.0
_BOOTED: Final = time.time() - boottime()


def of_pool(context: PoolContext, **more: object) -> dict[str, Any]:
    """Everything, as plain data. Reads memory only, so it works whatever the mounts do."""
    board, words = context.board, context.board.words
    served = [board.queue(index) for index, queue in enumerate(context.queues) if not queue.guest]
    return {
        "host": context.host.label,
        "pid": context.supervisor,
        "project": context.project,
        "pidfile": context.pidfile,
        "paused": bool(words[Header.PAUSED]) or all(words[base + Q.PAUSED] for base in served),
        "draining": bool(words[Header.DRAINING]),
        "up_seconds": _since(words[Header.STARTED]),
        "keeper_silent_seconds": _since(max(words[Header.KEEPER], words[Header.STARTED])),
        "scout_silent_seconds": _since(max(words[Header.SCOUT], words[Header.STARTED])),
        "ttl_seconds": max(words[board.queue(index) + Q.FORMAT_TTL] for index in range(board.queues)) / 1000
        or Format().ttl_seconds,
        "workers": [one for slot in context.board.worker_slots() if (one := of_worker(context, slot))],
        "queues": [of_queue(context, index) for index in range(len(context.queues))],
        **more,
    }


def _named(kind: type[IntEnum], word: int) -> str:
    """Also of what a broken process has written there."""
    try:
        return kind(word).name.lower()
    except ValueError:
        return "unknown"


def _since(nanoseconds: int) -> float:
    """How long ago that was, on the boot clock."""
    return round(boottime() - nanoseconds / 1e9, 1)


def of_queue(context: PoolContext, index: int) -> dict[str, Any]:
    """One queue as this host serves it."""
    board, words = context.board, context.board.words
    base, now = board.queue(index), boottime()
    paused_for = max(0.0, words[base + Q.PAUSED_UNTIL] / 1e9 - now)
    code = words[base + Q.PAUSE_CODE]
    workers = [
        one
        for slot in board.worker_slots()
        if (one := of_worker(context, slot)) and one["queue_index"] == index
    ]
    return {
        "queue": context.queues[index].name,
        "path": context.queues[index].layout.path,
        "guest": context.queues[index].guest,
        "host": context.host.label,
        "pid": context.supervisor,
        "state": _named(QueueState, words[base + Q.STATE]),
        "lease": board.lease(index),
        "beat_age_seconds": round(now - words[base + Q.BEAT] / 1e9, 1) if words[base + Q.BEAT] else None,
        "may_claim": words[base + Q.CLAIM_UNTIL] / 1e9 >= now,
        "hosts": words[base + Q.HOSTS],
        "paused": bool(words[Header.PAUSED] or words[base + Q.PAUSED]) or paused_for > 0,
        "paused_everywhere": bool(words[base + Q.PAUSED]),
        "paused_seconds": round(paused_for, 1),
        "paused_for": errno.errorcode.get(code, str(code)) if code and paused_for else None,
        "workers_since": _workers_since(board),
        "clock_offset_seconds": round(board.mount_time(index, wall := time.time(), now) - wall, 3),
        "faults": [asdict(fault) for fault in ChoreFaults(board, index).all()],
        "workers": workers,
    }


def _workers_since(board: Scoreboard) -> float | None:
    """When the oldest of them began, by this host's clock at its start; None while there is none."""
    words = board.words
    slots = [board.slot(slot) for slot in board.worker_slots()]
    began = [words[base + S.STARTED] for base in slots if words[base + S.KIND] == ProcessKind.WORKER]
    oldest = min((started for started in began if started), default=0)
    return round(oldest / 1e9 + _BOOTED, 3) if oldest else None


def of_worker(context: PoolContext, slot: int) -> dict[str, Any] | None:
    """One worker, and what it is on; None where the slot has none."""
    board: Scoreboard = context.board
    words, base = board.words, board.slot(slot)
    if words[base + S.KIND] != ProcessKind.WORKER:
        return None
    index = min(words[base + S.QUEUE], len(context.queues) - 1)
    handling = words[base + S.DEADLINE] != 0
    return {
        "pid": words[base + S.PID],
        "state": "handling" if handling else _named(State, words[base + S.STATE]),
        "queue": context.queues[index].name,
        "queue_index": index,
        "entry": board.name(slot) if board.holds(slot) else None,
        "handler": (board.handler(slot) or None) if handling else None,
        "seconds": round(boottime() - words[base + S.BEGAN] / 1e9, 3) if handling else None,
        "gathered": board.gathered(slot),
        "waits_for": words[base + S.WAITS_FOR] or None,
        "handled": words[base + S.HANDLED],
        "acked": words[base + S.ACKED],
        "deferred": words[base + S.DEFERRED],
        "failed": words[base + S.FAILED],
        "buried": words[base + S.BURIED],
        "released": words[base + S.RELEASED],
        "handed_off": words[base + S.HANDED],
        "lost": words[base + S.LOST],
    }


def on_claims(board: Scoreboard) -> Callable[[int, int], bool | None]:
    """Whether a process, by its pid, is on a claim, by its SEQ, as the board stands at this moment.

    None when no living process of that pid is here. One look at the board serves any number of claims.
    """
    held: dict[int, set[int]] = {}
    living: set[int] = set()
    for slot in board.worker_slots():
        base = board.slot(slot)
        pid = board.words[base + S.PID]
        held.setdefault(pid, set()).update(board.in_hand(slot))
        if board.words[base + S.STATE] <= State.BUSY:
            living.add(pid)

    def on_claim(pid: int, seq: int) -> bool | None:
        if seq in held.get(pid, ()):
            return True  # alive, or dead and still to be taken back: that is in hand already
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
        """Look at all slots' counters; a slot that another process has got counts from zero."""
        words = self._board.words
        for slot in self._board.worker_slots():
            base = self._board.slot(slot)
            pid, settled = words[base + S.PID], words[base + S.HANDLED]
            before_pid, before = self._seen.get(slot, (0, 0))
            self._total += settled - before if pid == before_pid and settled >= before else settled
            self._seen[slot] = (pid, settled)
        self._notes.append((now, self._total))
        while len(self._notes) > 2 and self._notes[1][0] <= now - _SPAN_SECONDS:
            self._notes.popleft()

    def noted(self, now: float) -> float | None:
        """Note, and tell the rate up to now."""
        self.note(now)
        return self.per_second()

    def per_second(self) -> float | None:
        """None until a second lies between two notes: one message in the first tenth is no ten a second."""
        if len(self._notes) < 2:
            return None
        (began, first), (ended, last) = self._notes[0], self._notes[-1]
        return round((last - first) / (ended - began), 1) if ended - began >= _LEAST_SECONDS else None
