"""How an intake process is executed."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator

import pytest

from maildefer.intake.connection_table import TableRow
from maildefer.intake.options import SocketProtocol, parse
from maildefer.pool.frontend.intake_command import IntakeCommand, RoutesMemory
from maildefer.pool.frontend.listeners import SmtpListener


@pytest.fixture
def listener() -> Iterator[SmtpListener]:
    with socket.socket() as bound:
        yield SmtpListener(bound, SocketProtocol.LMTP)


@pytest.fixture
def routes() -> Iterator[RoutesMemory]:
    found = RoutesMemory()
    yield found
    found.close()


def test_an_intake_process_understands_its_command_line(listener: SmtpListener, routes: RoutesMemory) -> None:
    command = IntakeCommand(options=["--queue", "q", "--max-errors=3"], listeners=[listener], routes=routes)
    image = command.image(report_fd=50, connection_row=TableRow(51, 1, 2), lifeline_fd=52, ready_fd=53)
    assert image.argv[:3] == [sys.executable, "-m", "maildefer.intake"]
    found = parse(image.argv[3:])
    assert (found.queue, found.max_errors) == ("q", 3)
    assert (found.report_fd, found.connection_row, found.lifeline_fd, found.ready_fd) == (
        50,
        TableRow(51, 1, 2),
        52,
        53,
    )
    assert found.sockets == ((listener.socket.fileno(), SocketProtocol.LMTP),)
    assert found.routes_path == f"/proc/self/fd/{routes.descriptor}"


def test_an_intake_process_inherits_what_its_command_line_names_and_no_other_descriptor(
    listener: SmtpListener, routes: RoutesMemory
) -> None:
    command = IntakeCommand(options=[], listeners=[listener], routes=routes)
    image = command.image(report_fd=50, connection_row=TableRow(51, 0, 1), ready_fd=53)
    assert sorted(image.inherited) == sorted([50, 51, 53, listener.socket.fileno(), routes.descriptor])
    assert IntakeCommand(options=[], listeners=[]).image(report_fd=50).inherited == [50]


def test_an_intake_process_gets_the_variables_that_are_named_for_it_and_no_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET", "key-of-all")
    monkeypatch.setenv("BLOG_DB_URL", "db://blog")
    environ = IntakeCommand(options=[], listeners=[], environment=["BLOG_DB_URL"]).image(report_fd=50).environ
    assert environ["BLOG_DB_URL"] == "db://blog"
    assert "AWS_SECRET" not in environ


def test_routes_are_read_whole_after_shorter_ones_have_taken_their_place(routes: RoutesMemory) -> None:
    for patterns in (["a" * 100, "b"], ["c"], []):
        told: list[dict[str, object]] = [{"pattern": pattern} for pattern in patterns]
        routes.write(told)
        with open(f"/proc/self/fd/{routes.descriptor}") as file:
            assert json.load(file) == {"routes": told}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(routes.descriptor, b"no")
