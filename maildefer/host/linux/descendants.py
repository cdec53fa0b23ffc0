"""The processes that a process has started, itself or through others, found in /proc and ended for good.

For rare moments: each look reads one file for every process of this pid namespace.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Final

from maildefer.host.identity import stat_fields
from maildefer.host.linux.pidfd import PidfdProcess

_MOST_LOOKS: Final = 20
_MOST_PID: Final = 1 << 22  # proc_sys_kernel(5): pid_max
_STATE, _PARENT, _SESSION, _START_TIME = 0, 1, 3, 19  # proc_pid_stat(5), counted from the third field
_DEAD: Final = (b"Z", b"X")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """A process as /proc shows it."""

    pid: int
    parent: int
    session: int
    start_time: int


Table = Mapping[int, ProcessEntry]


def list_processes() -> dict[int, ProcessEntry]:
    """Every process of this pid namespace that can be seen and has not ended."""
    found = {}
    try:
        for name in os.listdir("/proc"):
            if name.isdecimal() and (fields := stat_fields(int(name))) and fields[_STATE] not in _DEAD:
                found[int(name)] = ProcessEntry(
                    pid=int(name),
                    parent=int(fields[_PARENT]),
                    session=int(fields[_SESSION]),
                    start_time=int(fields[_START_TIME]),
                )
    except OSError:  # no descriptor left, no /proc: what was not seen lives on
        pass
    return found


def processes_below(pid: int) -> frozenset[ProcessEntry]:
    """The processes that a process has started, and theirs; not one whose parent has ended in between."""
    table = list_processes()
    return frozenset(table[one] for one in _closure(table, [pid]) if one != pid)


def is_or_is_below(parent: int, pid: int) -> bool:
    """Whether `pid` is that process itself, or one that it has started."""
    if pid == parent:
        return True
    fields = stat_fields(pid) if pid < _MOST_PID else None
    return fields is not None and int(fields[_PARENT]) == parent


def end_below(pid: int) -> int:
    """End all that `processes_below` shows; returns how many."""
    return _end(lambda table: _closure(table, [pid]) - {pid})


def end_family(session: int, known: Iterable[ProcessEntry]) -> int:
    """End the processes of a session whose leader has ended, those known from before, and all below either."""

    def chosen(table: Table) -> set[int]:
        seeds = {one.pid for one in table.values() if one.session == session}
        seeds |= {one.pid for one in known if _is_same(table, one)}
        return _closure(table, seeds)

    return _end(chosen)


def _is_same(table: Table, one: ProcessEntry) -> bool:
    return one.pid in table and table[one.pid].start_time == one.start_time


def _end(choose: Callable[[Table], set[int]]) -> int:
    """Stop all of them before any is killed: a stopped process can't start others, so none is missed.

    A process that this user may not signal is left alone: a handler has started it as another user.
    """
    with ExitStack() as held:
        stopped: dict[int, PidfdProcess] = {}
        refused: set[int] = set()
        for _ in range(_MOST_LOOKS):
            table = list_processes()
            fresh = choose(table) - stopped.keys() - refused - {os.getpid()}
            if not fresh:
                break
            for pid in fresh:
                try:
                    process = held.enter_context(closing(PidfdProcess(pid, table[pid].start_time)))
                    process.send(signal.SIGSTOP)
                    stopped[pid] = process
                except OSError:  # ended meanwhile; another user's
                    refused.add(pid)
        for process in stopped.values():
            try:
                process.send(signal.SIGKILL)
            except ProcessLookupError:  # somebody else has ended it
                pass
        return len(stopped)


def _closure(table: Table, seeds: Iterable[int]) -> set[int]:
    """The seeds and all below them."""
    children: dict[int, list[int]] = {}
    for one in table.values():
        children.setdefault(one.parent, []).append(one.pid)
    found: set[int] = set()
    waiting = list(seeds)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found
