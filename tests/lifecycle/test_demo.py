"""The demo is the whole product, on real mail: every part of it, with workers killed on the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
@pytest.mark.lifecycle
def test_the_demo_accounts_for_every_mail(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.demo", "--posts", "80", "--home", tmp_path / "demo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is accounted for." in done.stdout
    assert (tmp_path / "demo" / "run" / "blog" / "index.html").is_file()
