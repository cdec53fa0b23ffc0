"""The simulation in the test run: fixed schedules, new ones, and the planted bugs."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SECTION
from tests.simulation.histories import History
from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.scheduler import Process

ROOT = Path(__file__).resolve().parents[2]
ROTATING_SECONDS = float(os.environ.get("MAILDEFER_SIMULATE_SECONDS", "60"))

Record = Callable[[str, object], None]


def simulate(*arguments: str) -> str:
    """In a process of its own, since sets of names are walked in an order that is fixed at its start."""
    done = python("-m", "tests.simulation", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
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
    """The same ones each time, so that a change is what makes it fail."""
    simulate("--seed-from", "1000", "--schedules", "400", "--processes", "1")


@pytest.mark.slow
@pytest.mark.skipif(
    not ROTATING_SECONDS, reason="MAILDEFER_SIMULATE_SECONDS is 0, so no new schedules are tried"
)
def test_no_new_schedule_does_either(record_property: Record) -> None:
    """Each day's own, so that who looks into a failure meets the same; it shows its seed, and its shrunk trace."""
    first = int(time.time() // 86_400) * 1_000_000
    told = simulate("--seed-from", str(first), "--seconds", f"{ROTATING_SECONDS:g}", "--processes", "1")
    record_property(SECTION, f"simulation\n{told.strip()}")


@pytest.mark.slow
def test_every_planted_bug_is_caught(record_property: Record) -> None:
    done = python(
        "-m", "tests.simulation", "--mutants", "--seed-from", "1000", "--seconds", "100", "--processes", "2"
    )
    record_property(SECTION, f"planted bugs\n{done.stdout.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_handler_that_begins_after_its_claim_was_taken_over_was_charged_all_the_same() -> None:
    history = History(b"x", Process("a.pusher1", 1))
    assert history.begins(1)
    assert history.begins(3), "the second attempt was claimed, and its worker frozen before its handler"
    assert history.begins(2), "now it thaws"
    assert not history.begins(2), "but twice in one attempt is once too often"


def test_a_handler_that_begins_after_its_entry_was_handed_on_counts_for_the_queue_before() -> None:
    history = History(b"x", Process("a.pusher1", 1))
    history.counted_anew(2)
    assert history.begins(1, 2)
    assert history.begins(1, 0), "of a worker that was frozen with the first claim"
    assert not history.begins(1, 2)


@pytest.mark.slow
def test_a_schedule_replays_exactly() -> None:
    """Alone, and after others in the same process."""
    first, second = (
        python(
            "-c",
            "from tests.simulation.schedule import run\n"
            f"for seed in {seeds}:\n"
            "    result = run(seed)\n"
            "print(*result.trace, sep='\\n')",
        ).stdout
        for seeds in ([11], [5, 8, 11])
    )
    assert first
    assert first == second


@pytest.mark.slow
def test_a_failure_tells_its_seed_its_replay_and_a_short_trace() -> None:
    done = python(
        "-c",
        "from tests.simulation.__main__ import show\n"
        "from tests.simulation.mutants import MUTANTS\n"
        "from tests.simulation.schedule import run\n"
        "mutant = next(m for m in MUTANTS if m.rule == 'reclaim: without a fence')\n"
        "with mutant.planted():\n"
        "    show(next(r for s in range(50) if (r := run(s)).failure))\n",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("seed ")
    assert lines[-1].startswith("replay: PYTHONHASHSEED=0 python -m tests.simulation --seed ")
    assert any(line.lstrip().startswith(("I3", "I6")) for line in lines)
    assert len(lines) <= 70


def attributes_of(function: Callable[..., object]) -> set[str]:
    """What a planted bug reads or sets on the object that it is planted in."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    } - {"_asked"}  # of the bug's own


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.rule))
def test_a_planted_bug_names_what_is_there(mutant: Mutant) -> None:
    """Else it breaks nothing, or something else than what its name says."""
    for where, _, make in mutant.replacements:
        if isinstance(where, type):
            modules = {inspect.getmodule(one) for one in where.__mro__ if one is not object}
            source = "".join(inspect.getsource(module) for module in modules if module is not None)
            missing = {name for name in attributes_of(make) if not re.search(rf"\b{name}\b", source)}
            assert not missing, where
