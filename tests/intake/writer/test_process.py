"""The front end's writer: nothing has a 250 that is not stored, whatever goes wrong."""

from __future__ import annotations

import marshal
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import processes
from maildefer.host.identity import start_time
from maildefer.host.linux.parallel_fsync import fsync_all
from maildefer.intake.options import parse
from maildefer.intake.outcomes import Refusal
from maildefer.intake.writer import process
from maildefer.intake.writer.process import Writer
from maildefer.intake.writer.protocol import Job, Message, WriterAnswer, pack_answers
from maildefer.intake.writer.shared_memory import make_links
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from tests.support.front_end import front_end, wait_until

Make = Callable[[bool], Writer]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


@pytest.fixture
def make(layout: Layout) -> Iterator[Make]:
    """A writer to a disk of this machine, or to a mount."""
    sockets: list[socket.socket] = []
    options = parse(["--socket-fd", "0", "--queue", layout.path, "--min-free-bytes", "0"])

    def made(local: bool) -> Writer:
        ours, theirs = make_links(options.buffer_bytes, local=local)
        sockets.extend((ours.socket, theirs.socket))
        return Writer(layout, options, theirs)

    yield made
    for each in sockets:
        each.close()


def batch(count: int, *recipients: str, together: bool = True) -> list[Job]:
    """So many messages."""
    to = recipients or ("c@d",)
    message = Message("a@b", to, (b"Subject: x\n\n",), "ESMTP", "client", together)
    return [Job(number, message) for number in range(1, count + 1)]


def faults_of(answers: list[WriterAnswer]) -> list[Refusal | None]:
    return [each.fault for answer in answers for each in answer.stored]


@pytest.mark.invariant(1)
@pytest.mark.parametrize("count", [1, 3])
def test_a_fault_that_nobody_expects_is_a_451_for_each_and_nothing_is_said_to_be_stored(
    layout: Layout, make: Make, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def fail(self: Pusher, composes: object) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Pusher, "push_all", fail)
    answers = make(True).answer(batch(count))
    assert faults_of(answers) == [Refusal.INTERNAL_ERROR] * count
    assert [each.key for answer in answers for each in answer.stored] == [""] * count
    assert answers[0].stored[0].reason == "RuntimeError: a bug"
    assert os.listdir(layout.new) == []


@pytest.mark.invariant(1)
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_each_file_is_synced_before_it_has_its_name_and_the_folder_before_its_250(
    layout: Layout, make: Make, monkeypatch: pytest.MonkeyPatch, count: int, local: bool
) -> None:
    told: list[tuple[str, str]] = []

    def note_synced(*descriptors: int) -> None:
        told.extend(("sync", os.readlink(f"/proc/self/fd/{each}")) for each in descriptors)

    def sync(descriptor: int) -> None:
        SYSTEM.fsync(descriptor)
        note_synced(descriptor)

    def sync_all(descriptors: Sequence[int]) -> list[OSError | None]:
        faults = fsync_all(descriptors)
        note_synced(*descriptors)
        return faults

    def rename(old: str, new: str) -> None:
        told.append(("rename", old))
        SYSTEM.rename(old, new)

    system = replace(SYSTEM, fsync=sync, rename=rename)
    monkeypatch.setattr(process, "Pusher", partial(Pusher, system=system))
    monkeypatch.setattr(process, "fsync_all", sync_all)
    answers = make(local).answer(batch(count))
    keys = [each.key for answer in answers for each in answer.stored]
    assert all(fault is None for fault in faults_of(answers))
    assert sorted(os.listdir(layout.new)) == sorted(keys)
    for key in keys:
        draft = f"{layout.tmp}/{key}"
        assert told.index(("sync", draft)) < told.index(("rename", draft)) < told.index(("sync", layout.new))
    assert told[-1] == ("sync", layout.new)


@pytest.mark.lifecycle
def test_the_writer_of_a_front_end_that_was_killed_ends_by_itself(tmp_path: Path) -> None:
    """None is left that nobody talks to."""
    with front_end(tmp_path) as server:
        both = processes.tree(server.process.pid)
        assert len(both) == 2
        server.process.kill()
        wait_until(lambda: all(start_time(pid) is None for pid in both))


@pytest.mark.lifecycle
@pytest.mark.parametrize(
    "nonsense", [b"\0\0\0\0", b"\0\0\0\1\xff", b"\0\0\0\5" + marshal.dumps(7), b"\0\0\0\2[]"]
)
def test_a_writer_that_is_told_nonsense_ends_and_does_not_wait_on(layout: Layout, nonsense: bytes) -> None:
    """With it the front end, in whose place there comes another."""
    options = parse(["--socket-fd", "0", "--queue", layout.path])
    link = process.fork(layout.path, options, hostname="test")
    line, theirs = socket.socketpair()
    with link.socket, line:
        with theirs:
            socket.send_fds(link.socket, [b"\0"], [theirs.fileno()])
        line.settimeout(30)
        hello = line.recv(100)  # the thread is there
        assert hello == pack_answers(0, [])
        line.sendall(nonsense)
        assert line.recv(1) == b""
        link.socket.settimeout(30)
        assert link.socket.recv(1) == b""


@pytest.mark.lifecycle
def test_a_writer_that_is_told_something_instead_of_being_given_a_line_ends(layout: Layout) -> None:
    link = process.fork(layout.path, parse(["--socket-fd", "0", "--queue", layout.path]), hostname="test")
    with link.socket as line:
        line.sendall(b"x")
        line.settimeout(30)
        assert line.recv(1) == b""
