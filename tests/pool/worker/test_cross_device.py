"""Handoffs to another filesystem: a copy under a fresh key, which keeps the first one for handlers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.message.dsn.parameters import parsed
from maildefer.message.envelope import block
from maildefer.message.request import received
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.cross_device import hand_off_copy
from maildefer.queue import Queue

HOST = "host-0a1b2c"


@pytest.fixture
def queues(tmp_path: Path) -> tuple[Layout, Layout, Layout]:
    first, second, third = (create_queue(str(tmp_path / name)) for name in ("first", "second", "third"))
    return first, second, third


def claimer(layout: Layout) -> Claimer:
    return Claimer(layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=f"{HOST}-1-abcdef", host=HOST)


def only(path: str) -> str:
    [name] = os.listdir(path)
    return name


def shipped(source: Layout, target: Layout) -> None:
    claim = claimer(source).claim(only(source.new))
    assert claim is not None
    hand_off_copy(claim, target, host=HOST)


def test_a_shipped_entry_is_in_the_other_queue_and_nowhere_else(
    queues: tuple[Layout, Layout, Layout],
) -> None:
    first, second, _ = queues
    Queue(first.path).push(b"Subject: x\n\nbody\n", sender="a@x", recipient="b@y")
    shipped(first, second)
    assert os.listdir(first.new) == os.listdir(first.cur) == []
    data = Path(second.new, only(second.new)).read_bytes()
    assert data.endswith(b"\nSubject: x\n\nbody\n")


def test_the_first_key_stays_what_handlers_see_over_any_number_of_filesystems(
    queues: tuple[Layout, Layout, Layout],
) -> None:
    first, second, third = queues
    key = Queue(first.path).push(b"Subject: x\n\nbody\n", sender="a@x", recipient="b@y")
    shipped(first, second)
    shipped(second, third)
    name = only(third.new)
    request = received(Path(third.new, name).read_bytes(), name, 1, third.path, third.path)
    assert name != key
    assert request.key == key
    assert (request.From, request.To, request.Data) == ("a@x", "b@y", b"Subject: x\n\nbody\n")


def test_a_sender_cannot_claim_a_key_by_the_text_of_its_message(
    queues: tuple[Layout, Layout, Layout],
) -> None:
    first, _, _ = queues
    forged = b"Received: from key FORGED by host (maildefer) with handoff id X; now\n\nbody\n"
    key = Queue(first.path).push(forged, sender="a@x", recipient="b@y")
    request = received(Path(first.new, key).read_bytes(), key, 1, first.path, first.path)
    assert request.key == key


def test_a_shipped_entry_keeps_its_priority(queues: tuple[Layout, Layout, Layout]) -> None:
    first, second, _ = queues
    Queue(first.path).push(b"Subject: x\n\nbody\n", sender="a@x", recipient="b@y", priority="high")
    shipped(first, second)
    assert ",p=high," in only(second.new)


def test_what_the_sender_asks_of_reports_goes_with_it(queues: tuple[Layout, Layout, Layout]) -> None:
    first, second, third = queues
    asked = "RET=HDRS ENVID=QQ314 NOTIFY=NEVER"
    Pusher(first, host=HOST).push(
        lambda stem: [block(stem, "a@x", "b@y", host="h", when=0, via="ESMTP", dsn=asked), b"\nhi\n"]
    )
    shipped(first, second)
    shipped(second, third)
    name = only(third.new)
    message = received(Path(third.new, name).read_bytes(), name, 1, third.path, None)
    assert message.dsn == parsed(asked)
    assert (message.dsn.envid, message.Data) == ("QQ314", b"\nhi\n")
