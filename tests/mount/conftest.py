"""Beds and crews for a test, the choice of cases that `make test` runs, and the table of figures at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict

import pytest

from tests.mount.bed import NfsBed, missing
from tests.mount.harness import Crew, Figures

ALL = os.environ.get("MAILDEFER_NFS") == "all"
_HERE = f"{os.path.dirname(__file__)}{os.sep}"
_PROPERTY = "nfs"
_COLUMNS = "accepted lost extra takeovers fences doubles".split()

Enlist = Callable[..., Crew]
Tell = Callable[..., None]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All cases are `make nfs`; the others run those that are marked as chosen. At most two beds at a time."""
    here = [item for item in items if str(item.path).startswith(_HERE)]
    files = sorted({item.path for item in here})
    for item in here:
        item.add_marker(pytest.mark.mount)
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group(f"guests {files.index(item.path) % 2}"))
    left = set() if ALL else {item for item in here if not item.get_closest_marker("chosen")}
    if left:
        config.hook.pytest_deselected(items=list(left))
        items[:] = [item for item in items if item not in left]


@pytest.fixture
def enlist() -> Iterator[Enlist]:
    """Boot a bed and mount the export with a version of NFS: `enlist("4.2", clients=3, options="")`."""
    if text := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    with ExitStack() as stack:

        def boot(vers: str, clients: int = 3, options: str = "") -> Crew:
            crew = Crew(stack.enter_context(NfsBed(clients=clients, vers=vers, options=options)))
            stack.callback(_tell_logs, crew)
            return crew

        yield boot


def _tell_logs(crew: Crew) -> None:
    """What pytest shows of a case that fails."""
    for pool in crew.pools:
        print(f"--- {pool.guest.name}\n{crew.tail(pool)}", file=sys.stderr)


@pytest.fixture
def tell(record_property: Callable[[str, object], None], request: pytest.FixtureRequest) -> Tell:
    """Put a row into the table: `tell("4.2", figures, "a remark")`."""
    began = time.monotonic()

    def note(vers: str, figures: Figures | None = None, remark: str = "") -> None:
        facts = asdict(figures) if figures else {}
        case = request.node.originalname.removeprefix("test_").replace("_", " ")
        seconds = round(time.monotonic() - began)
        facts |= {"case": case, "vers": vers, "seconds": seconds, "remark": remark}
        record_property(_PROPERTY, json.dumps(facts))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = [
        (json.loads(text), report.outcome)
        for report in reports
        for name, text in getattr(report, "user_properties", ())
        if name == _PROPERTY and report.when == "call"
    ]
    if not found:
        return
    terminalreporter.section("real NFS")
    heads = ["case", "version", *_COLUMNS, "seconds", "result"]
    terminalreporter.write_line(f"| {' | '.join(heads)} |")
    terminalreporter.write_line("| --- " * len(heads) + "|")
    for row, outcome in sorted(found, key=lambda pair: (pair[0]["case"], pair[0]["vers"])):
        result = f"{outcome}{', ' if row['remark'] else ''}{row['remark']}"
        cells = [row["case"], row["vers"], *(row.get(name, "") for name in _COLUMNS), row["seconds"], result]
        terminalreporter.write_line(f"| {' | '.join(map(str, cells))} |")
