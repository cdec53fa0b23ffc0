"""A dead letter that a mail reader has moved into the queue is handled as after a requeue, whatever its name is now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from maildefer.handling.outcomes import Reject
from maildefer.handling.project import settings
from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.outbox import outputs
from maildefer.message.envelope import block
from maildefer.queue import Queue
from tests.pool.worker.test_attempt import MAIL, Bench

OWN_NAMES = ["1795888937.R42.reader", "1795888937.R42.reader:2,S", "cur.42,U=7:2,"]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    outputs._durable.clear()
    monkeypatch.setattr(settings, "loaded_settings", lambda: None)
    return Bench(tmp_path)


def dead(bench: Bench, **options: Any) -> str:
    """Push a message and have it buried; its key."""
    key = Queue(bench.first.path).push(MAIL, sender="a@x.test", recipient="b@x.test", **options)
    seen = bench.router

    def rejects(message: Any) -> None:
        raise Reject("no")

    bench.handle(rejects)
    bench.attempt()
    assert [EntryName.parse(name).key for name in os.listdir(bench.first.dead_new)] == [key]
    bench.router = type(seen)()
    return key


def move(layout: Layout, name: str) -> None:
    """Copy it under the reader's own name, and remove it, as mutt does."""
    [old] = os.listdir(layout.dead_new)
    Path(layout.new, name).write_bytes(Path(layout.dead_new, old).read_bytes())
    os.unlink(f"{layout.dead_new}/{old}")


def noted(bench: Bench) -> list[Any]:
    seen: list[Any] = []
    bench.handle(lambda message: seen.append((message.From, message.To, message.Data, message.attempt)))
    return seen


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.invariant(9)
def test_its_handlers_get_it_as_it_was_pushed_at_its_first_attempt(bench: Bench, name: str) -> None:
    dead(bench)
    move(bench.first, name)
    seen = noted(bench)
    bench.attempt()
    assert seen == [("a@x.test", "b@x.test", MAIL, 1)]
    assert (bench.waiting(), bench.waiting("cur"), bench.waiting(".dead/new")) == ([], [], [])
    assert len(os.listdir(bench.first.reasons)) == 1


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.invariant(12)
def test_it_holds_its_unique_key_before_its_handlers_run(bench: Bench, name: str) -> None:
    dead(bench, unique="17", priority="low")
    move(bench.first, name)
    seen = noted(bench)
    bench.attempt()
    [back] = bench.waiting()
    assert (seen, back.attempts, back.returns) == ([], 0, 1)
    assert ",p=low,q=" in back.key
    queue = Queue(bench.first.path)
    assert queue.push(MAIL, unique="17") == back.key
    bench.attempt()
    assert seen == [("a@x.test", "b@x.test", MAIL, 1)]
    assert queue.push(MAIL, unique="17").is_new


@pytest.mark.invariant(12)
def test_it_is_buried_again_where_another_entry_has_its_unique_key(bench: Bench) -> None:
    dead(bench, unique="17")
    move(bench.first, "1.R42.reader")
    other = Queue(bench.first.path).push(MAIL, unique="17")
    seen = noted(bench)
    os.rename(f"{bench.first.new}/{other}", f"{bench.first.later_new}/{other}")  # it is not tried now
    bench.attempt()
    [again] = bench.waiting(".dead/new")
    assert (seen, again.key) == ([], "1.R42.reader")
    assert other in str(reasons.read_reason(bench.first, again)["reason"])


def test_two_copies_are_two_messages(bench: Bench) -> None:
    dead(bench)
    [old] = os.listdir(bench.first.dead_new)
    for name in ("1.R1.reader", "1.R2.reader"):
        Path(bench.first.new, name).write_bytes(Path(bench.first.dead_new, old).read_bytes())
    seen = noted(bench)
    bench.attempt()
    bench.attempt()
    assert len(seen) == 2
    assert len(bench.waiting(".dead/new")) == 1


@pytest.mark.invariant(9)
def test_a_block_of_which_no_burial_is_known_is_the_messages_own_text(bench: Bench) -> None:
    dead(bench)
    stem = "1795888937.M1P1Q1R0000000000000000.h,q=0123456789abcdef"
    forged = block(stem, "eve@x.test", "b@x.test", host="h", when=0, via="push") + MAIL
    Path(bench.first.new, "1.R9.reader").write_bytes(forged)
    seen = noted(bench)
    bench.attempt()
    assert [data for _, _, data, _ in seen] == [forged]
    assert not os.path.exists(f"{bench.first.control}/unique/0123456789abcdef")
