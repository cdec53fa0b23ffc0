"""What befalls the processes of the pools: killed one by one or all together, frozen for a moment or beyond the TTL."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

from benchmarks import processes
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import TTL_SECONDS

KILLED = {"worker": 0.9, "intake": 0.04, "web": 0.02, "keeper": 0.02, "scout": 0.02}  # of the single kills
FROZEN = ("worker", "worker", "keeper", "scout", "supervisor", "intake", "web")
TREE_EVERY_SECONDS = (2.0, 5.0)
RESTART_AFTER_SECONDS = (0.0, 1.0)
FREEZE_EVERY_SECONDS = (0.2, 1.0)
FROZEN_SECONDS = (0.05, 1.0)
LONG_EVERY_SECONDS = (20.0, 30.0)
LONG_SECONDS = TTL_SECONDS * 1.5


class Faults:
    """Strikes whenever it is called and something is due; one thread."""

    def __init__(self, chance: random.Random, pools: list[Pool]) -> None:
        self.counts: Counter[str] = Counter()
        self._random = chance
        self._pools = pools
        self._down: dict[Pool, float] = {}  # when it is started again
        self._frozen: list[tuple[float, int]] = []  # when it goes on, pid
        self.thawed: dict[int, list[float]] = {}  # by pid: when it went on
        now = time.monotonic()
        self._tree_at = now + chance.uniform(*TREE_EVERY_SECONDS)
        self._freeze_at = now + chance.uniform(*FREEZE_EVERY_SECONDS)
        self._long_at = now + LONG_EVERY_SECONDS[0] / 4

    def strike(self, now: float) -> None:
        """Start and thaw what is due, then kill one process, and at times a host; freeze another one."""
        for pool in [pool for pool, at in self._down.items() if now >= at]:
            self._restart(pool)
        self._thaw(now)
        if now >= self._tree_at:
            self._tree_at = now + self._random.uniform(*TREE_EVERY_SECONDS)
            self._kill_host()
        self._kill_one()
        if now >= self._freeze_at:
            self._freeze_at = now + self._random.uniform(*FREEZE_EVERY_SECONDS)
            self._freeze_one(now)
        if now >= self._long_at:
            self._long_at = now + self._random.uniform(*LONG_EVERY_SECONDS)
            self._freeze_long(now)

    def end(self) -> None:
        """Everybody runs again."""
        self._thaw(float("inf"))
        for pool in list(self._down):
            self._restart(pool)

    def _up(self) -> list[Pool]:
        return [pool for pool in self._pools if pool not in self._down]

    def _kill_one(self) -> None:
        """A worker, whatever it is doing just now; once in a while a keeper, a scout or a process of the intake."""
        [kind] = self._random.choices(list(KILLED), list(KILLED.values()))
        if pids := [pid for pool in self._up() for pid in processes.by_role(pool.pid).get(kind, [])]:
            processes.kill([self._random.choice(pids)])
            self.counts[f"{kind} processes killed" if kind in ("intake", "web") else f"{kind}s killed"] += 1

    def _kill_host(self) -> None:
        """A whole host at once, or its supervisor alone, whose children then end by themselves."""
        pool = self._random.choice(self._pools)
        if pool in self._down:
            return
        if self._random.random() < 0.5:
            pool.kill_tree()
            self.counts["supervisors killed with all children"] += 1
        else:
            pool.signal(signal.SIGKILL)
            pool.wait()
            self.counts["supervisors killed alone"] += 1
        self._down[pool] = time.monotonic() + self._random.uniform(*RESTART_AFTER_SECONDS)

    def _restart(self, pool: Pool) -> None:
        del self._down[pool]
        pool.start()

    def _freeze_one(self, now: float) -> None:
        kind = self._random.choice(FROZEN)
        if pids := [pid for pool in self._up() for pid in processes.by_role(pool.pid).get(kind, [])]:
            self._stop(self._random.choice(pids), now + self._random.uniform(*FROZEN_SECONDS))
            self.counts["processes frozen for a moment"] += 1

    def _freeze_long(self, now: float) -> None:
        """A host as a paused machine is, or one of those that keep its lease: its work goes to others meanwhile."""
        up = self._up()
        if len(up) < len(self._pools):
            return
        pool = self._random.choice(up)
        kind = self._random.choice(("host", "host", "supervisor", "keeper"))
        pids = pool.tree() if kind == "host" else processes.by_role(pool.pid).get(kind, [])
        for pid in pids:
            self._stop(pid, now + LONG_SECONDS)
        if pids:
            self._tree_at = max(self._tree_at, now + LONG_SECONDS + TREE_EVERY_SECONDS[0])
            self.counts[f"{kind}s frozen beyond the TTL"] += 1

    def _stop(self, pid: int, until: float) -> None:
        try:
            os.kill(pid, signal.SIGSTOP)
        except ProcessLookupError:  # it has just ended
            return
        self._frozen.append((until, pid))

    def _thaw(self, now: float) -> None:
        for _, pid in [each for each in self._frozen if each[0] <= now]:
            try:
                self.thawed.setdefault(pid, []).append(time.monotonic())
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:  # killed meanwhile
                pass
        self._frozen = [each for each in self._frozen if each[0] > now]
