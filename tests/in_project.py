"""A project of the test's own, in the place of the one that has the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from maildefer.handling import finding, settings
from maildefer.handling.routes import Router, RoutingBase


def enter_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a project without settings, whose router knows no routes."""
    (folder / "run").mkdir(mode=0o755)
    monkeypatch.chdir(folder)
    for variable in finding.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(finding.PROJECT, str(folder))
    monkeypatch.setattr(settings, "_loaded", None)
    for name, value in vars(RoutingBase()).items():
        monkeypatch.setattr(Router, name, value)
