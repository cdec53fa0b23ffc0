"""Run schedules: python -m tests.simulation [--schedules N | --seconds S] [--seed-from K] | --seed K | --mutants

--schedules N   so many schedules; --seconds S: as many as there is time for
--seed-from K   the first seed; by default it follows from the time of day
--processes P   at a time; by default one for each processor
--progress FILE where to note what was done, and to go on from
--seed K        that schedule alone; a failing one is shrunk, and told
--mutants       plant each bug in turn; each has to be caught
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from tests.simulation.explore import explore
from tests.simulation.schedule import Result, run
from tests.simulation.shrink import history, shrink
from tests.simulation.table import plant


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.simulation", description="Run seeded schedules of the queue."
    )
    parser.add_argument("--schedules", type=int, help="how many")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--seed-from", type=int, help="the first seed; by default from the time of day")
    parser.add_argument("--seed", type=int, help="one schedule alone")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at a time")
    parser.add_argument("--progress", type=Path, help="note what was done in this file, and go on from it")
    parser.add_argument("--mutants", action="store_true", help="plant each bug in turn; each must be caught")
    parser.add_argument("--only", default="", help="of the bugs, the ones with such a name")
    options = parser.parse_args()
    if options.seed is not None:
        return show(run(options.seed))
    first = int(time.time()) % 10**8 * 1000 if options.seed_from is None else options.seed_from
    if options.mutants:
        return plant(first, options.seconds or 60.0, options.processes, options.only)
    seconds = 60.0 if options.schedules is None and options.seconds is None else options.seconds
    began = time.monotonic()
    print(f"schedules from seed {first}", flush=True)
    total = explore(first, options.schedules, seconds, options.processes, options.progress)
    if total.failed is not None:
        return show(run(total.failed))
    print(f"{total}; {time.monotonic() - began:.0f} seconds; no violation")
    return 0


def show(result: Result) -> int:
    """A failure, as small as it gets."""
    if not result.failure:
        print(f"seed {result.seed}: {result.fault_rates}: no violation, {result.claims} claims")
        return 0
    print(f"seed {result.seed}: {result.failure}\nfaults: {result.fault_rates}")
    small = shrink(result)
    if small is not result:
        print(f"shrunk to: {small.fault_rates}\n{small.failure}")
    print(history(small))
    print(f"replay: PYTHONHASHSEED=0 python -m tests.simulation --seed {result.seed}")
    return 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names are walked in an order that it decides
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    sys.exit(main())
