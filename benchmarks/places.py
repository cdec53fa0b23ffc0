"""Where the benchmarks find the project and keep their files."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
CONTENDERS = HERE / "contenders"
APPLICATIONS = HERE / "applications"
CACHE = ROOT / ".cache" / "benchmarks"
RESULTS = HERE / "results"
PYTHON = sys.executable


class Unavailable(Exception):
    """A benchmark, or one contender of it, can't run on this machine; the text says why and what would help."""
