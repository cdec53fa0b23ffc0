"""For all tests: each leaves no project loaded, and what one records under `SECTION`, the end of the run shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from maildefer import events
from maildefer.handling.project import queue_paths, settings
from maildefer.handling.project.finder import PACKAGES
from maildefer.handling.routes import Router
from maildefer.host import bounded_call
from maildefer.maildir.journal import close_journals

_MOST_LEFT_OPEN = 8  # what a library keeps, and what the collector has not found yet

SECTION = "section"  # record_property(SECTION, "title\nlines")

hypothesis.settings.register_profile(
    "same-each-time",
    derandomize=True,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same-each-time")


@pytest.fixture(autouse=True)
def _no_project_stays_loaded(request: pytest.FixtureRequest) -> Iterator[None]:
    """Settings and routes that were imported would be those of whichever test looks for its project next.

    The blog's own tests have imported it as they were collected.
    """
    is_blog = request.path.parent.name == "blog"
    imported = {} if is_blog else {name: sys.modules.pop(name) for name in _project_modules()}
    before, path = _project_modules(), list(sys.path)
    router = {
        name: value.copy() if isinstance(value, dict | list) else value
        for name, value in vars(Router).items()
    }
    if (testing := sys.modules.get("maildefer.testing")) is not None:
        testing._end()  # whoever imported it: these are no tests of a project
    yield
    if loaded := _project_modules() - before:
        for name in loaded:
            del sys.modules[name]
        vars(Router).update(router)
    sys.modules.update(imported)
    sys.path[:] = path
    settings._loaded = queue_paths._outside = None


@pytest.fixture(autouse=True)
def _looks_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine one that does not hang may take longer than two seconds, too."""
    for look in (bounded_call.bounded, bounded_call.side_by_side):
        monkeypatch.setattr(look, "__defaults__", (60.0,))


@pytest.fixture
def looks_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a look that hangs."""
    monkeypatch.setattr(bounded_call.bounded, "__defaults__", (bounded_call.LOOK_SECONDS,))


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events of the log, as records."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: lines.append({"event": event, **facts}))
    return lines


@pytest.fixture(autouse=True)
def _no_descriptors_stay_open() -> Iterator[None]:
    """Tests share a process: a few descriptors that each left open have ended others, in some orders only."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    close_journals()
    left = len(os.listdir("/proc/self/fd")) - before
    assert left <= _MOST_LEFT_OPEN, f"{left} descriptors were left open"


def _project_modules() -> set[str]:
    if sys.modules.keys().isdisjoint(PACKAGES):  # no module is there without its package
        return set()
    return {name for name in sys.modules if name.partition(".")[0] in PACKAGES}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that nothing is left of it when the other processes have no more to do."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == SECTION and report.when == "call":
                title, _, lines = str(text).partition("\n")
                terminalreporter.section(title)
                terminalreporter.write_line(lines)
