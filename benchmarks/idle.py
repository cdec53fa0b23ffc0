"""What an idle pool of 8 costs, the blog loaded: CPU per second, memory of all, memory of the supervisor."""

from __future__ import annotations

import time

from benchmarks import processes
from benchmarks.figures import Figure, Limit
from benchmarks.places import ROOT
from benchmarks.product import Pool

MB = 1e6


def measure(quick: bool) -> list[Figure]:
    """CPU over a minute from schedstat, PSS from smaps_rollup."""
    seconds = 10 if quick else 60
    with Pool(None, workers=8, application=ROOT) as pool:
        time.sleep(1 if quick else 10)  # polls back off to their slowest
        roles = processes.by_role(pool.pid)
        before = {role: _cpu_ms(pids) for role, pids in roles.items()}
        start = time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - start
        used = {role: (_cpu_ms(pids) - before[role]) / elapsed for role, pids in roles.items()}
        pss = {role: sum(map(processes.pss_bytes, pids)) / MB for role, pids in roles.items()}
        rss = processes.rss_bytes(pool.pid) / MB

    figures = [_figure("cpu of all", "ms/s", sum(used.values()), Limit(bound=1, at_most=True))]
    figures += [_figure(f"cpu of {_count(roles, role)}", "ms/s", value) for role, value in used.items()]
    figures += [_figure("PSS of all", "MB", sum(pss.values()), Limit(bound=80, at_most=True))]
    figures += [_figure(f"PSS of {_count(roles, role)}", "MB", value) for role, value in pss.items()]
    figures += [_figure("RSS of supervisor", "MB", rss, Limit(bound=25, at_most=True))]
    return figures


def _cpu_ms(pids: list[int]) -> float:
    return sum(map(processes.own_cpu_ns, pids)) / 1e6


def _figure(name: str, unit: str, value: float, limit: Limit | None = None) -> Figure:
    return Figure(
        benchmark="idle", case="pool of 8, blog", name=name, unit=unit, samples=[value], limit=limit
    )


def _count(roles: dict[str, list[int]], role: str) -> str:
    return role if len(roles[role]) == 1 else f"{len(roles[role])} × {role}"
