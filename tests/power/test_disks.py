"""Whole pools on this kernel's own filesystems, with everybody being killed all the time, and what the doctor says."""

from __future__ import annotations

import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import chaos
from maildefer.doctor.examine import judge_mount_at
from tests.power.conftest import WHOLE, Tell, require_loops, require_tools
from tests.power.disks import disk

ROOT = Path(__file__).resolve().parent.parent.parent
MESSAGES, SECONDS = (5_000, 30.0) if WHOLE else (400, 4.0)
KINDS = ["ext4", "xfs", "btrfs", "tmpfs"]
SIZE_BYTES = 1 << 30  # sparse
TOLD = (
    "messages pushed",
    "workers killed",
    "messages in handlers of workers that died",
    "handlings beyond one a message",
    "lost",
    "entries left over",
)


@pytest.fixture
def place(kind: str) -> Iterator[Path]:
    """A directory on a fresh filesystem of that kind."""
    require_loops()
    require_tools()
    with tempfile.TemporaryDirectory() as home, disk(kind, Path(home), SIZE_BYTES) as point:
        (point / "place").mkdir()
        yield point / "place"


@pytest.mark.parametrize("kind", KINDS if WHOLE else ["xfs", "btrfs"])  # the others' tests run on the rest
def test_nothing_is_lost_there_while_everybody_is_killed(kind: str, place: Path, tell: Tell) -> None:
    seed = random.SystemRandom().randrange(1 << 31)
    verdict = chaos.run(place, messages=MESSAGES, seconds=SECONDS, seed=seed)
    assert verdict.violations == [], f"seed {seed}\n{verdict.table()}"
    rows = dict(verdict.rows)
    tell(filesystem=kind, kernel=platform.release(), **{name: rows.get(name, 0) for name in TOLD})


@pytest.mark.parametrize("kind", KINDS)
def test_the_doctor_says_that_a_tmpfs_forgets_and_accepts_the_others(kind: str, place: Path) -> None:
    [finding] = judge_mount_at(str(place))
    assert finding.verdict == ("warn" if kind == "tmpfs" else "ok"), finding.fact
    assert kind in finding.fact


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not WHOLE, reason="`make power` runs the queue's tests on each filesystem")
def test_the_queues_own_tests_pass_there(kind: str, place: Path, tell: Tell) -> None:
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={place}/tests", "tests/maildir"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    tell(filesystem=kind, result=done.stdout.splitlines()[-1])
