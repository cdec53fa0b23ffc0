"""Commands of an operator in the project of a pool, on its host."""

from __future__ import annotations

import subprocess
import sys

from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS
from tests.support.json_lines import hold


def maildefer(pool: Pool, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Carry out one command; it may end in any way, and what it tells in JSON fits its schema."""
    ended = subprocess.run(
        [sys.executable, "-m", "maildefer", *arguments],
        cwd=pool.project.path,
        env=pool.environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 2,
        check=False,
    )
    hold(arguments, ended.stdout)
    return ended
