"""What happens to a mail that posts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.testing import settings
from maildefer.mail import MailRequest
from maildefer.routing import Reject
from maildefer.server import Relay
from maildefer.testing import RouterConversation, every_crash
from workers.posting import POSTING

Post = Callable[..., MailRequest]


def test_a_post_is_published_and_its_author_told(mail: Post, pages: Path, relay: Any) -> None:
    POSTING(mail(), post_name="hello", host="example")
    assert "It works." in (pages / "hello.html").read_text()
    [answer] = relay.delivered
    assert answer["To"] == "ann@example.org"
    assert answer["From"] == "hello@osb.example"
    assert "hello.html" in str(answer)


def test_the_answer_cannot_be_answered(mail: Post, relay: Any) -> None:
    POSTING(mail(), post_name="hello", host="example")
    assert relay.delivered[0]["Auto-Submitted"] == "auto-replied"
    assert relay.senders == [""]


def test_an_author_with_a_percent_sign_is_an_address_like_any_other(mail: Post, relay: Any) -> None:
    POSTING(mail(sender="ann%d@example.org"), post_name="hello", host="example")
    assert relay.delivered[0]["To"] == "ann%d@example.org"


def test_the_front_page_is_left_to_the_other_queue(mail: Post, pages: Path) -> None:
    assert POSTING(mail(), post_name="hello", host="example") == "workers.index.START"
    assert not (pages / "index.html").exists()


def test_a_relay_that_cannot_be_reached_leaves_the_answer_to_the_next_attempt(
    mail: Post, pages: Path, relay: Any
) -> None:
    relay.fault = ConnectionRefusedError("refused")
    with pytest.raises(ConnectionRefusedError):
        POSTING(mail(), post_name="hello", host="example")
    assert (pages / "hello.html").exists()
    relay.fault = None
    POSTING(mail(), post_name="hello", host="example")
    assert len(relay.delivered) == 1


def test_a_bounce_is_no_post(mail: Post, pages: Path) -> None:
    with pytest.raises(Reject):
        POSTING(mail(sender=""), post_name="hello", host="example")
    assert not pages.exists()


@pytest.mark.parametrize(
    "sign",
    [
        {"Auto_Submitted": "auto-generated"},
        {"List_Id": "<talk.example>"},
        {"X_Auto_Response_Suppress": "All"},
    ],
)
def test_an_automatic_mail_is_published_but_not_answered(
    mail: Post, pages: Path, relay: Any, sign: dict[str, str]
) -> None:
    POSTING(mail(**sign), post_name="hello", host="example")
    assert (pages / "hello.html").exists()
    assert relay.delivered == []


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/b", ".hidden", "index", "INDEX", "x" * 101, "", "a\0b", "a\n"]
)
def test_a_name_that_is_no_safe_file_name_is_rejected(mail: Post, pages: Path, name: str) -> None:
    with pytest.raises(Reject):
        POSTING(mail(), post_name=name, host="example")
    assert not pages.exists()


def test_what_a_stranger_writes_is_text_and_never_markup(mail: Post, pages: Path) -> None:
    POSTING(mail(text="<script>alert(1)</script>", sender='"<b>"@x.org'), post_name="hello", host="example")
    page = (pages / "hello.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_a_conversation_of_a_test_is_answered_each_time(pages: Path) -> None:
    ann = RouterConversation("ann@example.org", "A title")
    ann.begin()
    for _ in range(2):
        assert ann.say("hello@osb.example", "It works.", expect="is published") is not None
    assert ann.queue.count() == 2
    assert "It works." in (pages / "hello.html").read_text()


def test_a_death_at_any_step_repeats_at_most_the_answer(mail: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "relay", Relay("127.0.0.1", 25))  # which sends nothing in tests
    effects = every_crash(POSTING, mail(), may_repeat=("deliver",), post_name="hello", host="example")
    assert effects == 1
