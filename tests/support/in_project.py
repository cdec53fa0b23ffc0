"""A folder of the test's own, in the place of the project that has the test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maildefer.handling.project import finder, settings
from maildefer.handling.routes import Router, RoutingBase


def enter_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder of no project, where the router knows no routes."""
    (folder / "run").mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    for variable in (*finder.VARIABLES, finder.PROJECT):
        monkeypatch.delenv(variable, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] in finder.PACKAGES]:
        monkeypatch.delitem(sys.modules, name)  # imported by whatever test
    monkeypatch.setattr(settings, "_loaded", None)
    for name, value in vars(RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)
