"""Descriptors are waited for whatever their number: a worker of async handlers has thousands."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator

import pytest

from maildefer.host.linux.readiness import await_readable, await_writable

HIGH = 1100  # select(2) takes none above 1,023


@pytest.fixture
def reader_and_writer() -> Iterator[list[int]]:
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD, HIGH) for end in ends]
    for end in ends:
        os.close(end)
    yield high
    for end in high:
        os.close(end)


def test_a_pipe_is_readable_once_something_is_in_it(reader_and_writer: list[int]) -> None:
    reader, writer = reader_and_writer
    assert min(reader, writer) >= HIGH
    assert not await_readable(reader, 0)
    os.write(writer, b"x")
    assert await_readable(reader)
    assert await_readable(reader, 0)


def test_a_pipe_is_writable_until_it_is_full(reader_and_writer: list[int]) -> None:
    reader, writer = reader_and_writer
    os.set_blocking(writer, False)
    assert await_writable(writer)
    while await_writable(writer, 0):
        os.write(writer, bytes(4096))
    os.read(reader, 4096)
    assert await_writable(writer, 0)


def test_an_end_whose_other_end_is_closed_is_waited_for_no_longer() -> None:
    here, there = socket.socketpair()
    with here:
        there.close()
        assert await_readable(here.fileno())
        assert await_writable(here.fileno())


def test_a_time_that_has_passed_already_is_no_time(reader_and_writer: list[int]) -> None:
    assert not await_readable(reader_and_writer[0], -5.0)
