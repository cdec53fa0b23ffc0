"""Run schedules: python -m tests.simulation [--seeds N | --seconds S] [--seed K] [--mutants]

--seeds N     so many schedules, --seconds S: as many as there is time for, on all processors
--seed K      the first seed; without --seeds and --seconds that schedule alone, with its trace
--mutants     plant each bug in turn; each has to be caught
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from multiprocessing import Pool

from tests.simulation.mutants import MUTANTS, Verdict, judge
from tests.simulation.schedule import Result, run
from tests.simulation.shrink import shrink, story

_MUTANT_SCHEDULES = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.simulation", description="Run seeded schedules of the queue."
    )
    parser.add_argument("--seeds", type=int, help="how many schedules")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--seed", type=int, help="the first seed; by default the time of day")
    parser.add_argument("--mutants", action="store_true", help="plant each bug in turn; each must be caught")
    parser.add_argument("--only", default="", help="of the bugs, the ones with such a name")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    first = int(time.time()) % 10**8 * 1000 if options.seed is None else options.seed
    if options.mutants:
        return plant(first, options.seconds or 20.0, options.processes, options.only)
    if options.seeds is None and options.seconds is None:
        return show(run(first))
    return explore(first, options.seeds, options.seconds, options.processes)


@dataclass(frozen=True, slots=True)
class Part:
    """What one processor has to do: each so many-th seed, until there are enough or the time is over."""

    first: int
    stride: int
    most: int | None
    until: float | None


@dataclass(slots=True)
class Sum:
    schedules: int = 0
    claims: int = 0
    taken_back: int = 0
    steps: int = 0
    failed: Result | None = None


def explore(first: int, most: int | None, seconds: float | None, processes: int) -> int:
    """Schedules on all processors, until the first that fails."""
    began = time.monotonic()
    until = None if seconds is None else began + seconds
    parts = [
        Part(
            first + index,
            processes,
            None if most is None else (most + processes - 1 - index) // processes,
            until,
        )
        for index in range(processes)
    ]
    total = Sum()
    with Pool(processes) as pool:
        for part in pool.imap_unordered(_explore, parts):
            if part.failed is not None:
                pool.terminate()
                return show(part.failed)
            total.schedules += part.schedules
            total.claims += part.claims
            total.taken_back += part.taken_back
            total.steps += part.steps
    took = time.monotonic() - began
    print(
        f"{total.schedules} schedules from seed {first}, {total.schedules / took:.0f} a second: {total.steps} steps,"
        f" {total.claims} claims, {total.taken_back} taken back; no violation"
    )
    return 0


def _explore(part: Part) -> Sum:
    found, seed = Sum(), part.first
    while (part.most is None or found.schedules < part.most) and (
        part.until is None or time.monotonic() < part.until
    ):
        result = run(seed)
        if result.failure:
            found.failed = result
            break
        found.schedules += 1
        found.claims += result.claims
        found.taken_back += result.taken_back
        found.steps += result.steps
        seed += part.stride
    return found


def show(result: Result) -> int:
    """A failure, as small as it gets."""
    if not result.failure:
        print(f"seed {result.seed}: {result.weather}: no violation, {result.claims} claims")
        return 0
    print(f"seed {result.seed}: {result.failure}\nweather: {result.weather}")
    small = shrink(result)
    if small is not result:
        print(f"shrunk to: {small.weather}\n{small.failure}")
    print(story(small))
    print(f"replay: python -m tests.simulation --seed {result.seed}")
    return 1


def plant(first: int, seconds: float, processes: int, only: str) -> int:
    """The table of planted bugs."""
    survivors = 0
    print(f"{'planted bug':<56} {'schedules':>9} {'seed':>12}  caught by")
    with Pool(processes, maxtasksperchild=1) as pool:
        jobs = [(index, first, seconds) for index, mutant in enumerate(MUTANTS) if only in mutant.rule]
        for verdict in pool.imap(_judge, jobs):
            survivors += verdict.seed is None
            seed = "SURVIVES" if verdict.seed is None else str(verdict.seed)
            print(
                f"{verdict.mutant_rule:<56} {verdict.schedules:>9} {seed:>12}  {verdict.failure[:60]}",
                flush=True,
            )
    print(f"{len(jobs) - survivors} of {len(jobs)} planted bugs caught")
    return 1 if survivors else 0


def _judge(job: tuple[int, int, float]) -> Verdict:
    index, first, seconds = job
    return judge(MUTANTS[index], first, most=_MUTANT_SCHEDULES, seconds=seconds)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names are walked in an order that it decides
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
