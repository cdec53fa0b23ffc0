"""Run the models: the protocol has to hold, and each planted weakness to be found.

python -m tests.model              what takes seconds
python -m tests.model --deep       also with more faults: a quarter of an hour
python -m tests.model --traces     with the steps that lead to each weakness
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.model import files, runs, times
from tests.model.explore import Result


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.model", description="Model-check the protocol.")
    parser.add_argument("--deep", action="store_true", help="also with more faults")
    parser.add_argument("--traces", action="store_true", help="print the steps that lead to each weakness")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    wrong = 0
    for what, result, is_right in explored(options.processes, deep=options.deep):
        print(f"{'ok   ' if is_right else 'WRONG'}  {what}: {result}", flush=True)
        if result.trace and (options.traces or not is_right):
            print(*(f"  {number:3}. {step}" for number, step in enumerate(result.trace, 1)), sep="\n")
        wrong += not is_right
    return 1 if wrong else 0


def explored(processes: int, *, deep: bool = False) -> Iterator[tuple[str, Result, bool]]:
    """Explore each run; yields what it is, what came of it, and whether that is as it has to be."""
    pools = [run for run in (*runs.HOLDS, *runs.PLANTED) if deep or not run.is_deep]
    with ProcessPoolExecutor(processes) as executor:
        results = executor.map(runs.Run.explored, pools)
        for run, result in zip(pools, results, strict=True):
            yield run.what, result, result.violation.partition(":")[0] == run.found
    for small in (*files.RUNS, *times.RUNS):
        result = small.explored()
        yield small.what, result, (not result.violation) == small.is_sound


if __name__ == "__main__":
    sys.exit(main())
