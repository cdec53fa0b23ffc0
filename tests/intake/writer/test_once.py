"""Messages that are pushed once: all of their entries, or none, and composed only for what is not pushed yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from maildefer.errors import AddressRefused, MaildeferError
from maildefer.intake.outcomes import DueRefused, Refusal, Stored
from maildefer.intake.writer.once import OnceWriter
from maildefer.intake.writer.protocol import Message
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Compose, Pusher
from tests.support.queues import LABEL, everywhere

MESSAGE = Message(
    "a@x.org", ("b@x.org", "c@x.org"), (b"hello\n",), "HTTP", "", True, once="3f" * 16, fingerprint="0" * 32
)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


def writer(layout: Layout, composes: Callable[[Message], list[Compose]]) -> OnceWriter:
    return OnceWriter(Pusher(layout, host=LABEL), composes, host=LABEL)


def plain(message: Message) -> list[Compose]:
    return [partial(lambda to, stem: (to.encode(), *message.pieces), to) for to in message.recipients]


def fail(fault: MaildeferError, stem: str) -> list[bytes]:
    raise fault


def test_a_repetition_is_not_composed_so_that_what_has_passed_meanwhile_does_not_matter(
    layout: Layout,
) -> None:
    first = writer(layout, plain).push(MESSAGE)
    refused = partial(fail, DueRefused("at=2026: that is past"))
    again = writer(layout, lambda message: [refused, refused]).push(MESSAGE)
    assert again == [each._replace(is_repeated=True) for each in first]


@pytest.mark.parametrize("which", [0, 1])
def test_where_one_entry_cannot_be_made_none_is(layout: Layout, which: int) -> None:
    composes = plain(MESSAGE)
    composes[which] = partial(fail, AddressRefused("b@x.org", "it is odd"))
    stored = writer(layout, lambda message: composes).push(MESSAGE)
    assert [each.fault for each in stored] == [Refusal.ADDRESS_REFUSED] * 2
    assert everywhere(layout) == {}
    assert all(each.key for each in writer(layout, plain).push(MESSAGE))


def test_of_a_large_message_the_first_recipients_entry_is_told_first(layout: Layout) -> None:
    pusher = Pusher(layout, host=LABEL)

    def composes(message: Message) -> list[Compose]:
        """As DraftStore has them: the others copy the first one's, which is the last."""
        first = pusher.draft()
        first.append(b"b@x.org hello\n")

        def copy(stem: str) -> Draft:
            made = pusher.draft(stem)
            made.append(b"c@x.org")
            made.append_from(first, len(b"b@x.org"))
            return made

        return [copy, lambda stem: first]

    stored = OnceWriter(pusher, composes, host=LABEL).push(MESSAGE._replace(draft=1))
    told = [Path(f"{layout.new}/{each.key}").read_bytes() for each in stored]
    assert told == [b"b@x.org hello\n", b"c@x.org hello\n"]


def test_while_something_is_short_nothing_new_is_stored_and_what_is_stored_is_told_of(layout: Layout) -> None:
    once = writer(layout, plain)
    assert once.push(MESSAGE, "no room") == [Stored("", Refusal.QUEUE_FULL, "no room")] * 2
    assert everywhere(layout) == {}
    first = once.push(MESSAGE)
    assert [each.key for each in once.push(MESSAGE, "no room")] == [each.key for each in first]
    assert sorted(os.listdir(layout.new)) == sorted(each.key for each in first)
