"""The figures of power cuts and of chaos on real disks, printed at the end."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable

import pytest

from tests.power.disks import MAKE, PATH

WHOLE = os.environ.get("MAILDEFER_POWER") == "all"
_HERE = f"{os.path.dirname(__file__)}{os.sep}"
_PROPERTY = "power"
PACKAGES = "e2fsprogs xfsprogs btrfs-progs mount"

Tell = Callable[..., None]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One at a time, and one of the mount tests beside it."""
    for item in items:
        if str(item.path).startswith(_HERE):
            item.add_marker(pytest.mark.mount)
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.xdist_group("guests 0"))


@pytest.fixture
def tell(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Tell:
    """Put a line into the table: `tell(filesystem="xfs", cuts=40)`."""
    began = time.monotonic()

    def note(**facts: object) -> None:
        case = request.node.originalname.removeprefix("test_").replace("_", " ")
        seconds = round(time.monotonic() - began)
        record_property(_PROPERTY, json.dumps({"case": case, **facts, "seconds": seconds}))

    return note


def require_tools() -> None:
    """Skip where they are missing; in CI, fail."""
    missing = [make[0] for _, make in MAKE.values() if shutil.which(make[0], path=PATH) is None]
    if missing:
        text = f"missing {' '.join(missing)}: apt-get install --no-install-recommends {PACKAGES}"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)


def require_loops() -> None:
    if os.geteuid() != 0:
        pytest.skip("a loop mount needs root")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this machine has no loop devices")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        json.loads(text)
        for report in terminalreporter.stats.get("passed", [])
        for name, text in getattr(report, "user_properties", ())
        if name == _PROPERTY and report.when == "call"
    ]
    if rows:
        terminalreporter.section("power and disks")
    for case in dict.fromkeys(row["case"] for row in rows):
        of_case = [{name: row[name] for name in row if name != "case"} for row in rows if row["case"] == case]
        terminalreporter.write_line(f"\n{case}\n")
        terminalreporter.write_line(f"| {' | '.join(of_case[0])} |")
        terminalreporter.write_line("| --- " * len(of_case[0]) + "|")
        for row in of_case:
            terminalreporter.write_line(f"| {' | '.join(map(str, row.values()))} |")
