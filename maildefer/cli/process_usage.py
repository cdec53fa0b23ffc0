"""Memory and processor time of a process and its children, for `status`."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The usage of a tree of processes. Shared pages count once (PSS), where the kernel shows it."""

    processes: int
    memory_bytes: int
    cpu_seconds: float


def usage_of_tree(pid: int) -> Usage | None:
    """The usage of a process's tree; None if it has ended or is another user's. Reads /proc only."""
    try:
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.Error:
        return None
    count, memory, cpu = 0, 0, 0.0
    for process in tree:
        try:
            facts = process.memory_full_info()
            times = process.cpu_times()
        except psutil.Error:  # it has ended meanwhile, or may not be looked into
            continue
        count += 1
        memory += getattr(facts, "pss", 0) or facts.rss
        cpu += times.user + times.system
    return Usage(processes=count, memory_bytes=memory, cpu_seconds=round(cpu, 2)) if count else None
