"""The run of `make versions`, short."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.formats import two_versions


@pytest.mark.lifecycle
@pytest.mark.slow
def test_the_last_release_and_this_version_lose_nothing_on_one_queue_while_both_are_killed(
    tmp_path: Path,
) -> None:
    last, project = tmp_path / "last", tmp_path / "project"
    last.mkdir()
    try:
        two_versions.last_release(last)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the history of the repository is not here, and so not the last release")
    seed = random.SystemRandom().randrange(1 << 31)
    outcome = two_versions.run(project, last, seconds=15, seed=seed)
    assert outcome.is_good(), f"seed {seed}: {outcome}"
    assert min(outcome.pushed, outcome.kills, outcome.changes) > 0
