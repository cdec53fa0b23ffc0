"""The simulation in the test run: some schedules, and a planted bug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since sets of names are walked in an order that is fixed at its start."""
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.invariant(2)
@pytest.mark.invariant(3)
@pytest.mark.invariant(4)
@pytest.mark.invariant(5)
@pytest.mark.invariant(6)
@pytest.mark.invariant(7)
@pytest.mark.invariant(8)
@pytest.mark.invariant(10)
def test_no_schedule_breaks_an_invariant() -> None:
    """The same ones each time, so that a change is what makes it fail; `make simulate` goes through new ones."""
    done = simulate("--seed-from", "1000", "--schedules", "600")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_schedule_replays_exactly() -> None:
    """Alone, and after others in the same process."""
    first, second = (
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from tests.simulation.schedule import run\n"
                f"for seed in {seeds}:\n"
                "    result = run(seed)\n"
                "print(*result.trace, sep='\\n')",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seeds in ([11], [5, 8, 11])
    )
    assert first
    assert first == second


@pytest.mark.slow
def test_a_planted_bug_fails_and_its_trace_is_short() -> None:
    code = (
        "from tests.simulation.mutants import MUTANTS\n"
        "from tests.simulation.schedule import run\n"
        "from tests.simulation.shrink import shrink, story\n"
        "mutant = next(m for m in MUTANTS if m.rule == 'reclaim: without a fence')\n"
        "with mutant.planted():\n"
        "    print(story(shrink(next(r for s in range(50) if (r := run(s)).failure))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "I6" in done.stdout or "I3" in done.stdout
    assert len(done.stdout.splitlines()) <= 61
