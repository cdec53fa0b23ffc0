"""Real mail, all the way: push, claim, parse, route, bury, show; each message's bytes intact."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.corpus import MESSAGES, CorpusMissing, messages
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Outcome
from maildefer.handling.routes import RoutingBase
from maildefer.maildir import scan
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import entries
from maildefer.maildir.push import Pusher
from maildefer.message import envelope
from maildefer.message.request import MailRequest, received

pytestmark = pytest.mark.slow

SENDER, RECIPIENT = "Ann@example.org", "a-post@osb.example"


@pytest.fixture(scope="module")
def corpus() -> list[tuple[str, bytes]]:
    try:
        return list(messages())
    except CorpusMissing as why:
        pytest.skip(str(why))


class PlainHand:
    """Publishes nothing: nobody audits here."""

    def __init__(self) -> None:
        self.last = 0

    def next_seq(self) -> int:
        self.last += 1
        return self.last

    def take_place(self, seq: int, name: str) -> int:
        return 0

    def free_place(self, place: int) -> None:
        pass


@pytest.fixture
def queue(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


@pytest.fixture
def claimer(queue: Layout) -> Claimer:
    return Claimer(queue, PlainHand(), lease=f"here-{os.getpid()}-abcdef", host="here-abcdef")


def push(queue: Layout, data: bytes) -> str:
    def compose(stem: str) -> list[bytes]:
        block = envelope.block(stem, SENDER, RECIPIENT, host="here", when=1_700_000_000, via="push")
        return [block, data]

    return Pusher(queue, host="here-abcdef").push(compose)


def test_the_corpus_is_whole(corpus: list[tuple[str, bytes]]) -> None:
    assert len(corpus) == MESSAGES
    assert len({name for name, _ in corpus}) == MESSAGES
    assert all(corpus_bytes for _, corpus_bytes in corpus)


# Some declare a charset that their text is not in; writing such a message anew says so.
@pytest.mark.filterwarnings("ignore::UnicodeWarning")
def test_every_message_is_claimed_routed_parsed_and_buried_with_its_bytes_intact(
    corpus: list[tuple[str, bytes]], queue: Layout, claimer: Claimer
) -> None:
    dispatch = reading_dispatcher()
    for name, data in corpus:
        key = push(queue, data)
        [waiting] = scan.entries(queue.new)
        claim = claimer.claim(waiting)
        assert claim is not None, name
        raw = claim.read()
        request = received(raw, claim.key, claim.attempt, queue.path, "test")
        assert (request.Data, request.From, request.To) == (data, SENDER.lower(), RECIPIENT), name
        outcome, handlers = dispatch(request)
        assert outcome == ACKED, f"{name}: {outcome}"
        assert handlers == "reader.READ"
        claim.bury("the end of this test", handler=handlers)
        dead = entries.find(queue, key, ("dead",))
        assert entries.read_found(dead) == raw, name
        assert raw.endswith(data), name
        entries.delete(queue, dead)


def reading_dispatcher() -> Callable[[MailRequest], tuple[Outcome, str]]:
    """One route, whose handler reads all that there is in a message."""

    def READ(message: MailRequest, post_name: str) -> None:
        assert post_name == "a-post"
        for part in (message.base, *message.walk()):
            assert isinstance(part.body, str | bytes | None)
            assert all(isinstance(value, str) for _, value in part.items())
        assert message.to_message().as_bytes()

    READ.__module__, READ.__name__ = "reader", "READ"
    handler_marks.mark_stateless(READ)
    router = RoutingBase()
    router.register_route(r"^(?P<post_name>[a-z-]+)@osb\.example$", READ)
    return Dispatcher(router, ["reader"]).dispatch
