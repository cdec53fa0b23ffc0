"""A post from its push to the front page, over hours, in this process and without a sleep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maildefer.server import Relay


def test_a_post_whose_answer_can_not_be_sent_is_handled_within_the_hour(
    maildefer_queue: Any, pages: Path, relay: Any
) -> None:
    relay.fault = OSError("no relay")
    maildefer_queue.push(
        "Subject: Hi\n\nIt works.\n", sender="ann@example.org", recipient="hello@osb.example"
    )
    assert [attempt.outcome for attempt in maildefer_queue.drain()] == ["deferred"]
    assert not (pages / "index.html").exists()
    relay.fault = None
    ended = maildefer_queue.advance(hours=1)
    assert [(attempt.queue, attempt.outcome) for attempt in ended] == [
        ("run/queue", "handed_off"),
        ("run/posts", "acked"),
    ]
    assert "hello.html" in (pages / "index.html").read_text()
    assert [answer["To"] for answer in relay.delivered] == ["ann@example.org"]


def test_the_answer_of_an_attempt_that_is_cut_short_is_not_seen_and_the_next_ones_is(
    maildefer_queue: Any, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver, faults = Relay.deliver, [OSError("cut short")]

    def deliver_and_fail(*arguments: Any, **named: Any) -> None:
        deliver(*arguments, **named)
        if faults:
            raise faults.pop()

    monkeypatch.setattr(Relay, "deliver", deliver_and_fail)
    maildefer_queue.push(
        "Subject: Hi\n\nIt works.\n", sender="ann@example.org", recipient="hello@osb.example"
    )
    assert [attempt.outcome for attempt in maildefer_queue.drain()] == ["deferred"]
    assert maildefer_queue.answers == []
    maildefer_queue.advance(hours=1)
    assert [answer.To for answer in maildefer_queue.answers] == ["ann@example.org"]


def test_a_bounce_is_a_dead_letter(maildefer_queue: Any) -> None:
    key = maildefer_queue.push("Subject: Undelivered\n\nx\n", sender="", recipient="hello@osb.example")
    [attempt] = maildefer_queue.drain()
    assert (attempt.outcome, attempt.reason) == ("buried", "a bounce, not a post")
    assert maildefer_queue.dead() == [key]
