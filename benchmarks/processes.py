"""What /proc tells of a tree of processes."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# A title, "maildefer: scout run/queue", or what a child of its own was started as, "maildefer.pool.keeper.keeper".
_ROLE = re.compile(rb"maildefer(?::|\.pool\.)[ \w-]*?(keeper|scout|template|worker|intake|web|probe)")


def tree(pid: int) -> list[int]:
    """`pid` and its descendants, those that live now; parents come before their children."""
    found, waiting = [], [pid]
    while waiting:
        member = waiting.pop()
        try:
            children = Path(f"/proc/{member}/task/{member}/children").read_text().split()
        except OSError:
            continue  # it has just ended
        found.append(member)
        waiting.extend(map(int, children))
    return found


def cpu_ns(pid: int) -> int:
    """CPU that the tree under `pid` used so far, ended children of `pid` included (those to a tick)."""
    return sum(map(own_cpu_ns, tree(pid))) + _ended_children_ns(pid)


def idle_cpu(pids: Mapping[T, int], rounds: int, seconds: float) -> dict[T, list[float]]:
    """Wait for so many rounds; the processor time of each process and its children in each, in ms/s."""
    found: dict[T, list[float]] = {name: [] for name in pids}
    for _ in range(rounds):
        before, began = {name: cpu_ns(pid) for name, pid in pids.items()}, time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        for name, pid in pids.items():
            found[name].append((cpu_ns(pid) - before[name]) / 1e6 / elapsed)
    return found


def own_cpu_ns(pid: int) -> int:
    """CPU of one process, all its threads, from schedstat; 0 when it has ended."""
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
        return sum(int(Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()[0]) for task in tasks)
    except OSError:
        return 0


def rss_bytes(pid: int) -> int:
    """Resident memory; 0 when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def pss_bytes(pid: int) -> int:
    """Resident memory, what is shared counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss in smaps_rollup of {pid}")


def began(pid: int) -> float:
    """When it was started, in seconds since the boot. Raises OSError when it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) * _TICK_NS / 1e9


def anonymous_bytes(pid: int) -> int:
    """Memory that no file stands behind, as a leak would be; 0 when it has ended.

    Not what is private: a library's pages are so as soon as nobody else happens to use it.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Anonymous:", "Swap:")))


def descriptors(pid: int) -> int:
    """How many it has open; 0 when it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def by_role(pid: int) -> dict[str, list[int]]:
    """The pool's members by what their titles say: supervisor (its root), keeper, scout and so on.

    A child that has not set its title yet is of those others.
    """
    roles: dict[str, list[int]] = {"supervisor": [pid]}
    for member in tree(pid)[1:]:
        try:
            title = Path(f"/proc/{member}/cmdline").read_bytes().replace(b"\0", b" ")
        except OSError:
            continue  # it has just ended
        found = _ROLE.search(title)
        roles.setdefault(found[1].decode() if found else "other", []).append(member)
    return roles


def kill(pids: list[int]) -> None:
    """Ends them at once; those that have ended are no error."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # gone already


def _ended_children_ns(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * _TICK_NS
