"""A front end's report is parsed into numbers and texts within limits: nonsense in it reaches nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from maildefer.pool import read_only
from maildefer.pool.reported import Reported, read_report
from maildefer.pool.shared import pair, receive, send
from tests.strangers import as_user


@pytest.fixture
def report() -> Iterator[int]:
    descriptor = os.memfd_create("report")
    yield descriptor
    os.close(descriptor)


def test_a_report_is_read_as_it_was_told(report: int) -> None:
    told = {"connections": 3, "accepted": 7, "queue": "/q", "shortages": {"/q": "no room"}}
    os.pwrite(report, json.dumps({**told, "pid": 1}).encode().ljust(2048), 0)
    assert read_report(report).facts() == told


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        b"[" * 4096,
        b'{"a":' * 800,
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe",
        b'{"connections": ' + b"9" * 4000 + b"}",
        b'{"connections": -1, "clients": true, "accepted": NaN, "held_bytes": [[]], "max_backlog": 1e400}',
        b'{"queue": {"x": 1}, "shortages": [1], "kind": "supervise", "address": "elsewhere", "pid": 1}',
        b'{"shortages": {"q": 7, "r": null}}',
    ],
)
def test_nonsense_in_a_report_is_nothing(report: int, nonsense: bytes) -> None:
    """Nested JSON ended the supervisor with a RecursionError, and the pool with it."""
    os.pwrite(report, nonsense, 0)
    assert read_report(report) == Reported()
    assert read_report(report).facts() == {}


def test_what_is_too_long_is_cut(report: int) -> None:
    os.pwrite(report, json.dumps({"queue": "q" * 3000}).encode(), 0)
    assert read_report(report).queue == "q" * 1000


@pytest.mark.parametrize("nonsense", [b"[" * 50_000, b"{", b"7", b"\xff", b'{"a": ' * 9_000])
def test_a_message_that_is_none_costs_no_other(nonsense: bytes) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.send(nonsense)
        send(theirs, request="stop")
        assert list(receive(ours)) == [{"request": "stop"}]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not")
def test_what_a_child_only_reads_it_cannot_change() -> None:
    writer, reader = read_only.make("routes")
    os.write(writer, b"routes")

    def attempt() -> None:
        with open(f"/proc/self/fd/{reader}", "rb") as file:
            assert file.read() == b"routes"
        for act in (
            lambda: os.write(reader, b"x"),
            lambda: os.ftruncate(reader, 0),
            lambda: os.open(f"/proc/self/fd/{reader}", os.O_RDWR),
        ):
            with pytest.raises(OSError):  # noqa: PT011  # EBADF, EINVAL, EACCES
                act()

    os.set_inheritable(reader, True)
    try:
        as_user(65_534, 65_534, attempt)
    finally:
        os.close(writer)
        os.close(reader)
