"""What an idle pool of 8 costs, the blog loaded: CPU per second, memory of all, memory of the supervisor.

And what memory it has after 1,000 posts a worker, at once and when each worker has been replaced after a rest.
"""

from __future__ import annotations

import os
import time

from benchmarks import processes
from benchmarks.figures import Figure, Limit
from benchmarks.filler import fill
from benchmarks.places import ROOT
from benchmarks.product import Pool, wait_until

MB = 1e6
_WORKERS = 8
_REST_SECONDS = 5


def measure(quick: bool) -> list[Figure]:
    """CPU over a minute from schedstat, PSS from smaps_rollup."""
    seconds = 10 if quick else 60
    with Pool(None, workers=_WORKERS, application=ROOT) as pool:
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
    return figures + _after_load(quick)


def _after_load(quick: bool) -> list[Figure]:
    """Memory after a load, while its workers live, and when they have been replaced."""
    posts = 100 if quick else 1_000
    settings = {"MAILDEFER_IDLE_SECONDS_PER_WORKER": f"{_REST_SECONDS}", "MAILDEFER_MESSAGES_PER_WORKER": "0"}
    with Pool(None, workers=_WORKERS, application=ROOT, settings=settings) as pool:
        queue = os.path.join(pool.directory, "run", "queue")
        loaded = set(processes.by_role(pool.pid)["worker"])
        fill(queue, _WORKERS * posts)
        wait_until(lambda: not os.listdir(f"{queue}/new") and not os.listdir(f"{queue}/cur"), 300, "handled")
        time.sleep(1)  # what follows the last of them
        after = _pss_mb(pool.pid)
        wait_until(lambda: _are_replaced(pool, loaded), 20 * _REST_SECONDS, "all workers replaced")
        pool.wait_until_idle()
        rested = _pss_mb(pool.pid)
    name = f"PSS of all after {posts} posts a worker"
    return [
        _figure(name, "MB", after),
        _figure(f"{name} and a rest", "MB", rested, Limit(bound=95, at_most=True)),
    ]


def _are_replaced(pool: Pool, former: set[int]) -> bool:
    workers = set(processes.by_role(pool.pid).get("worker", []))
    return len(workers) == _WORKERS and not workers & former


def _pss_mb(pid: int) -> float:
    return sum(map(processes.pss_bytes, processes.tree(pid))) / MB


def _cpu_ms(pids: list[int]) -> float:
    return sum(map(processes.own_cpu_ns, pids)) / 1e6


def _figure(name: str, unit: str, value: float, limit: Limit | None = None) -> Figure:
    return Figure(
        benchmark="idle", case="pool of 8, blog", name=name, unit=unit, samples=[value], limit=limit
    )


def _count(roles: dict[str, list[int]], role: str) -> str:
    return role if len(roles[role]) == 1 else f"{len(roles[role])} × {role}"
