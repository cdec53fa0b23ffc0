"""Commands of an operator in the project of a pool, on its host."""

from __future__ import annotations

import subprocess
import sys

from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS, eventually
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


def answered(pool: Pool, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Carry out `status` or `probe` where all answer: again, where a busy machine took longer than these wait."""

    def ask() -> subprocess.CompletedProcess[str] | None:
        ended = maildefer(pool, *arguments)
        is_late = "no answer within" in ended.stdout + ended.stderr or '"usage": null' in ended.stdout
        return None if is_late else ended

    ended = eventually(ask, f"an answer to {' '.join(arguments)}")
    assert ended is not None
    return ended
