"""A front end's report is parsed into numbers and texts within limits: nonsense in it reaches nobody else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from maildefer.intake.status_report import REPORT_BYTES, _encode
from maildefer.pool.fork import read_only_memory
from maildefer.pool.frontend.status_report import FrontEndStatus, read_report
from maildefer.untrusted import UntrustedRecord
from tests.support.other_users import as_user


@pytest.fixture
def report() -> Iterator[int]:
    descriptor = os.memfd_create("report")
    yield descriptor
    os.close(descriptor)


def test_a_report_is_read_as_it_was_told(report: int) -> None:
    told = {
        "connections": 3,
        "accepted": 7,
        "queue": "/q",
        "refused": {"5.1.1": 2},
        "shortages": {"/q": "no room"},
    }
    os.pwrite(report, json.dumps({**told, "pid": 1}).encode().ljust(2048), 0)
    assert read_report(report).facts() == told


@pytest.mark.parametrize(
    "nonsense",
    [
        b"[" * 4096,
        b'{"a":' * 800,
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe",
        b'{"connections": ' + b"9" * 4000 + b"}",
        b'{"connections": 1' + b"0" * 400 + b"}",
        b'{"connections": -1}',
        b'{"clients": true}',
        b'{"accepted": NaN}',
        b'{"held_bytes": [[]]}',
        b'{"max_backlog": 1e400}',
        b'{"queue": {"x": 1}}',
        b'{"refused": [1]}',
        b'{"refused": {"5.1.1": "7"}}',
        b'{"refused": {"5.1.1": -7}}',
        b'{"shortages": [1]}',
        b'{"shortages": {"q": 7}}',
        b'{"connections": 1',
    ],
)
def test_nonsense_in_a_report_is_told(report: int, nonsense: bytes) -> None:
    """Nested JSON ended the supervisor with a RecursionError, and the pool with it."""
    os.pwrite(report, nonsense.ljust(2048), 0)
    with pytest.raises(UntrustedRecord):
        read_report(report)


@pytest.mark.parametrize("told", [b"", b"\0" * 5000, b" " * 2048])
def test_a_report_that_was_not_written_yet_is_empty(report: int, told: bytes) -> None:
    os.pwrite(report, told, 0)
    assert read_report(report) == FrontEndStatus()
    assert read_report(report).facts() == {}


def test_what_a_report_says_of_others_is_passed_over(report: int) -> None:
    os.pwrite(
        report,
        b'{"kind": "supervise", "address": "elsewhere", "pid": 1, "connections": 99999999999999999}',
        0,
    )
    assert read_report(report) == FrontEndStatus()


def test_a_report_that_is_being_written_is_read_again(report: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([b'{"connections": 1, "acc' + b" " * 9, b'{"connections": 1, "accepted": 2}'])
    monkeypatch.setattr(os, "pread", lambda *_: next(looks))
    assert read_report(report).accepted == 2


def test_what_is_too_long_is_cut(report: int) -> None:
    os.pwrite(report, json.dumps({"queue": "q" * 3000}).encode(), 0)
    assert read_report(report).queue == "q" * 1000


@pytest.mark.parametrize("size", [100, 3000, 60_000])
def test_a_report_is_never_cut_in_two(report: int, size: int) -> None:
    """As it was with many queues that could take no more: half a record is none."""
    shortages = {f"/queue/{number}": "\u00e9" * 200 for number in range(size // 100)}
    data = _encode({"connections": 3, "queue": "/" + "\u00e9" * size}, shortages)
    assert len(data) <= REPORT_BYTES
    os.pwrite(report, data.ljust(REPORT_BYTES), 0)
    assert read_report(report).connections == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not")
def test_what_a_child_only_reads_it_cannot_change() -> None:
    writer, reader = read_only_memory("routes")
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
