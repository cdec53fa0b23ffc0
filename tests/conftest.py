"""Tables in the test run's report: what a test records under `SECTION`, the end of the run shows."""

from __future__ import annotations

import pytest

SECTION = "section"  # record_property(SECTION, "title\nlines")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    for report in reports:
        for name, text in getattr(report, "user_properties", ()):
            if name == SECTION and report.when == "call":
                title, _, lines = str(text).partition("\n")
                terminalreporter.section(title)
                terminalreporter.write_line(lines)
