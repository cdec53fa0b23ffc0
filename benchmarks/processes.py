"""What /proc tells of a tree of processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """`pid` and its descendants, those that live now."""
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
    total = 0
    for member in tree(pid):
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                total += int(Path(f"/proc/{member}/task/{task}/schedstat").read_text().split()[0])
        except OSError:
            continue  # it has just ended
    return total + _ended_children_ns(pid)


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Pss in smaps_rollup of {pid}")


def by_role(pid: int) -> dict[str, list[int]]:
    """The pool's members by what their titles say: supervisor (its root), keeper, scout, worker, other."""
    roles: dict[str, list[int]] = {"supervisor": [pid]}
    for member in tree(pid)[1:]:
        try:
            title = Path(f"/proc/{member}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        role = next((role for role in ("keeper", "scout", "worker") if role in title), "other")
        roles.setdefault(role, []).append(member)
    return roles


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # gone already


def _ended_children_ns(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * _TICK_NS
