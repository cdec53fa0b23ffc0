"""A push with a unique key beside a plain one, and a push that finds its key held: processor time, and rate."""

from __future__ import annotations

import os
from contextlib import ExitStack

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare
from benchmarks.filler import make_maildir
from benchmarks.gate import Gated
from benchmarks.places import PYTHON, Unavailable

PUSHES = 1_000  # of each way in a round
TURN = 25  # pushes of each pusher
WAYS = ("plain", "unique", "found")
UNITS = ("msg/cpu s", "msg/s")
LIMITS = {"plain": Limit(bound=0.5)}


def measure(quick: bool) -> list[Figure]:
    """One pusher, and 8 in one process that share their syncs."""
    rounds, count = (3, PUSHES // 4) if quick else (7, PUSHES)
    figures = []
    try:
        with filesystem.ext4() as base:
            for pushers in (1, 8):
                taken = [_round(base, count, pushers) for _ in range(rounds)]
                case = f"{pushers} pusher{'s' * (pushers > 1)}"
                for way, name, limits in (("unique", "new", LIMITS), ("found", "held", {})):
                    for number, unit in enumerate(UNITS):
                        pair = {"plain": [one["plain"][number] for one in taken]}
                        pair[OURS] = [one[way][number] for one in taken]
                        figures += compare("unique", f"{case}, {name} key, {unit}", pair, unit, limits)
    except Unavailable as why:
        print(f"  skipped: {why}")
    return figures


def _round(base: str, count: int, pushers: int) -> dict[str, tuple[float, float]]:
    """Pushes a processor second and a second of each way.

    Each has a process and a queue of its own. They push in short turns, so that a machine that is slower for a while
    is slower for all.
    """
    with filesystem.fresh_directory(base) as directory, ExitStack() as stack:

        def started(way: str) -> Gated:
            queue = make_maildir(os.path.join(directory, way))
            command = [PYTHON, "-m", "benchmarks.contenders.push_unique", queue, way, str(pushers)]
            return stack.enter_context(Gated(command))

        gates = {way: started(way) for way in WAYS}
        spent = dict.fromkeys(WAYS, (0, 0))
        turns = count // (TURN * pushers)
        for _ in range(turns):
            for way, gate in gates.items():
                cpu, wall = map(int, gate.ask(str(TURN * pushers)).split())
                spent[way] = spent[way][0] + cpu, spent[way][1] + wall
        for gate in gates.values():
            gate.result()
    pushed = turns * TURN * pushers * 1e9
    return {way: (pushed / cpu, pushed / wall) for way, (cpu, wall) in spent.items()}
