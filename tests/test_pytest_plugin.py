"""The fixture `maildefer_queue`, in a project of its own: pytest in a process, as its developer runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "tests" / "simulated_pool"


@pytest.mark.slow
def test_a_projects_tests_advance_the_clock_and_sleep_for_nothing(tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("__pycache__"))
    environ = {
        name: text for name, text in os.environ.items() if not name.startswith(("MAILDEFER_", "PYTEST"))
    }
    options = ["-q", "-p", "maildefer.pytest_plugin", "-p", "no:randomly", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "check_shop.py"],
        cwd=project,
        env=environ | {"PYTHONPATH": f"{project}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "22 passed" in ended.stdout, ended.stdout[-6000:] + ended.stderr[-2000:]


def test_the_plugin_imports_nothing_of_the_application() -> None:
    code = (
        "import sys, maildefer.pytest_plugin; print([m for m in sys.modules if m.startswith('maildefer.')])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == "['maildefer.pytest_plugin']"
