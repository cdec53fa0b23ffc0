"""Calls of tasks as messages: what is signed, for which entry, and what is refused."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maildefer.digest import blake2b
from maildefer.errors import QueueError, SigningRefused, StorageFault
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Buried, Outcome
from maildefer.handling.routes import Router
from maildefer.handling.tasks import signature as taskkey
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from maildefer.message.request import received
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker import cross_device
from maildefer.queue import Queue
from maildefer.tasks import ArgumentsRefused, Task, task
from tests.support.in_project import enter_project

HOST = "host-0a1b2c"
ELSEWHERE = "1.M1P1Q1R1.elsewhere"
CALLS: list[Any] = []


def rebuild(blog_id: Any) -> None:
    CALLS.append(blog_id)


def repair(blog_id: Any) -> None:
    CALLS.append(("repaired", blog_id))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    enter_project(tmp_path, monkeypatch)
    CALLS.clear()
    return Queue("run/queue").layout


@pytest.fixture
def deferred(project: Layout) -> Path:
    """A waiting call's file."""
    key = task(rebuild).defer(7)
    return Path(project.new, key)


def claimed(layout: Layout) -> Claim:
    claimer = Claimer(layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=f"{HOST}-1-abcdef", host=HOST)
    claim = claimer.claim(min(os.listdir(layout.new)))
    assert claim is not None
    return claim


def handled(layout: Layout, settle: Callable[[Claim], object]) -> Outcome:
    claim = claimed(layout)
    message = received(claim.read(), claim.key, claim.attempt, layout.path, None)
    outcome = Dispatcher(Router, [__name__]).dispatch(message)[0]
    settle(claim)
    return outcome


def refused(layout: Layout) -> str:
    outcome = handled(layout, Claim.ack)
    assert isinstance(outcome, Buried), outcome
    assert CALLS == []
    return outcome.reason


def copied(entry: Path, name: str) -> Path:
    """The call as another entry whose block is made for that, as somebody would who knows how."""
    stem, other = (one.partition(",")[0].encode() for one in (entry.name, name))
    copy = entry.with_name(name)
    copy.write_bytes(entry.read_bytes().replace(b" id %b;" % stem, b" id %b;" % other))
    return copy


def signed_without_key(layout: Layout, entry: Path) -> None:
    """The call as an earlier version has it."""
    data = entry.read_bytes()
    text = data.rpartition(b"\n\n")[2].rstrip(b"\n")
    signature = blake2b(text, key=taskkey.ensure_secret(layout.path), digest_size=32).hexdigest()
    entry.write_bytes(re.sub(rb"(?<=Maildefer-Signature: )[0-9a-f]+", signature.encode(), data))


@pytest.mark.parametrize("name", [ELSEWHERE, f"{ELSEWHERE},S=9", "{}0", "{},U=1", "{}.copy", "x{}"])
def test_a_copy_of_a_call_under_another_name_is_refused(project: Layout, deferred: Path, name: str) -> None:
    copied(deferred, name.format(deferred.name))
    shutil.copy(deferred, f"{project.new}/{name.format(deferred.name)}.as-it-is")
    deferred.unlink()
    assert {"a copy of one under another name" in refused(project) for _ in range(2)} == {True}


def test_a_copy_that_says_that_it_was_handed_on_from_the_calls_own_entry_is_refused(
    project: Layout, deferred: Path
) -> None:
    copy = copied(deferred, f"{ELSEWHERE},S=9")
    deferred.unlink()
    forged = b"Received: from key %b by \\1 (maildefer) with handoff " % deferred.name.encode()
    copy.write_bytes(re.sub(rb"Received: by (\S+) \(maildefer\) with push ", forged, copy.read_bytes()))
    message = Queue("run/queue").get(copy.name)
    assert message.key == deferred.name  # as it says
    assert "a copy of one under another name" in refused(project)


def test_a_call_keeps_its_key_and_is_good_wherever_its_entry_goes(project: Layout, deferred: Path) -> None:
    assert handled(project, Claim.release) == ACKED
    assert handled(project, lambda claim: claim.defer(0, failed=True)) == ACKED
    [later] = entries.list_entries(project, "deferred")
    entries.release_deferred(project, later)
    assert handled(project, lambda claim: claim.bury("for now")) == ACKED
    [dead] = entries.list_entries(project, "dead")
    entries.requeue(project, dead)
    [name] = os.listdir(project.new)
    os.rename(f"{project.new}/{name}", f"{project.new}/{name}:2,S")  # as a mail reader does
    assert handled(project, Claim.ack) == ACKED
    assert CALLS == [7] * 4


def test_a_call_that_was_handed_on_to_another_filesystem_is_no_call_there(
    project: Layout, deferred: Path
) -> None:
    other = Queue("run/other").layout
    shutil.copy(f"{project.path}/.maildefer/task-key", f"{other.path}/.maildefer/task-key")
    cross_device.hand_off_copy(claimed(project), other, host=HOST)
    [message] = (Queue("run/other").get(key) for key in os.listdir(other.new))
    assert (message.key, message.copied_as) == (deferred.name, os.listdir(other.new)[0])
    assert "a copy of one under another name" in refused(other)


def test_a_call_that_a_handler_pushes_again_is_a_copy(project: Layout, deferred: Path) -> None:
    message = Queue("run/queue").get(deferred.name)
    deferred.unlink()
    Queue("run/queue").push(message)
    assert "a copy of one under another name" in refused(project)


def test_a_call_that_an_earlier_version_signed_is_refused_and_its_reason_says_so(
    project: Layout, deferred: Path
) -> None:
    signed_without_key(project, deferred)
    assert "an earlier version of maildefer signed" in refused(project)


def test_a_call_that_comes_to_another_task_is_a_dead_letter(project: Layout, deferred: Path) -> None:
    task(repair)
    data = deferred.read_bytes()
    # In the block, which nobody signs.
    deferred.write_bytes(data.replace(b"call.rebuild@", b"call.repair@", 1))
    assert f"a call of {__name__}.rebuild that came to {__name__}.repair" in refused(project)


@pytest.mark.parametrize(
    "text",
    [
        b'{"task": "test_calls.rebuild", "args": [NaN], "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [-Infinity], "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [1e999], "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [{"a": 1, "a": 2}], "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [7], "args": [8], "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [%b], "kwargs": {}}' % (b"9" * 5000),
        b'{"task": "test_calls.rebuild", "args": ' + b"[" * 100_000,
        b'{"task": "test_calls.rebuild", "args": 7, "kwargs": {}}',
        b'{"task": "test_calls.rebuild", "args": [7]}',
        b'{"task": "test_calls.rebuild", "args": [7], "kwargs": {}, "more": 1}',
        b'"\xff"',
        b"7",
        b"",
    ],
    ids=lambda text: repr(text[29:60]),
)
def test_what_is_signed_and_yet_no_call_is_a_dead_letter(
    project: Layout, deferred: Path, text: bytes
) -> None:
    top, _, _ = deferred.read_bytes().rpartition(b"\n\n")
    signature = taskkey.signature(taskkey.ensure_secret(project.path), deferred.name, text)
    top = re.sub(rb"(?<=Maildefer-Signature: )[0-9a-f]+", signature.encode(), top)
    deferred.write_bytes(top + b"\n\n" + text)
    assert "a call of a task" in refused(project)


@pytest.mark.parametrize(
    "value", [float("nan"), float("-inf"), {"a": float("inf")}, {1: 2, "1": 3}, 10**5000], ids=range(5)
)
def test_no_argument_is_taken_that_json_would_make_another_one_of(value: Any) -> None:
    with pytest.raises(ArgumentsRefused, match="rebuild"):
        task(rebuild).defer(value)


def test_two_calls_alike_are_two_calls(project: Layout) -> None:
    made: Task[..., None] = task(rebuild)
    made.defer(7)
    made.defer(7)
    assert handled(project, Claim.ack) == handled(project, Claim.ack) == ACKED
    assert CALLS == [7, 7]


@pytest.mark.parametrize("secret", [b"", b"short"])
def test_a_damaged_secret_signs_nothing(project: Layout, deferred: Path, secret: bytes) -> None:
    Path(project.path, ".maildefer/task-key").write_bytes(secret)
    with pytest.raises(QueueError, match=r"task-key.*remove it"):
        task(rebuild).defer(7)
    assert handled(project, Claim.ack) != ACKED
    assert CALLS == []


def test_a_secret_that_cannot_be_made_is_an_error_that_names_it(
    project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(source: str, target: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StorageFault, match="task-key"):
        task(rebuild).defer(7)
    assert os.listdir(project.new) == []
    assert not [name for name in os.listdir(f"{project.path}/.maildefer") if "task-key" in name]


def test_a_secret_that_may_not_be_read_is_for_the_workers_user_only(
    project: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, **limit: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("maildefer.maildir.durable.read_small", refuse)
    with pytest.raises(
        SigningRefused, match=r"task-key: Permission denied: .*defer as the workers' user"
    ) as refused:
        taskkey.ensure_secret(project.path)
    assert "permission to" not in str(refused.value)
