"""The table of planted bugs: which schedule, or which unit test, catches each."""

from __future__ import annotations

from multiprocessing import get_context

from tests.simulation.mutants import MUTANTS, Verdict, judge

_MOST_SCHEDULES = 50_000
_FORK = get_context("fork")


def plant(first: int, seconds: float, processes: int, only: str) -> int:
    """Plant each bug in turn; print the table. Returns the exit code: 1 if one survives."""
    survivors = 0
    print("| planted bug | schedules | seed | caught by |\n| --- | --- | --- | --- |", flush=True)
    jobs = [(index, first, seconds) for index, mutant in enumerate(MUTANTS) if only in mutant.rule]
    with _FORK.Pool(processes, maxtasksperchild=1) as pool:
        for verdict in pool.imap(_judge, jobs):
            survivors += not verdict.failure
            print(row(verdict), flush=True)
    print(f"{len(jobs) - survivors} of {len(jobs)} planted bugs caught")
    return 1 if survivors else 0


def row(verdict: Verdict) -> str:
    if verdict.seed is not None:
        return f"| {verdict.rule} | {verdict.schedules} | {verdict.seed} | {verdict.failure[:60]} |"
    caught = f"`{verdict.failure}`" if verdict.failure else "**nothing: it survives**"
    return f"| {verdict.rule} | {verdict.schedules} | | {caught} |"


def _judge(job: tuple[int, int, float]) -> Verdict:
    index, first, seconds = job
    return judge(MUTANTS[index], first, most=_MOST_SCHEDULES, seconds=seconds)
