"""Real mail, all the way: push, claim, parse, route, hand on, bury, show; each message's bytes intact."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.corpus import MESSAGES, CorpusMissing, messages
from maildefer import view
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import HandedOff
from maildefer.handling.routes import Router
from maildefer.maildir import operate, scan
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from maildefer.message import envelope
from maildefer.message.request import received

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

    def take(self, seq: int, name: str) -> int:
        return 0

    def drop(self, place: int) -> None:
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


def test_every_message_is_claimed_parsed_handed_on_and_buried_with_its_bytes_intact(
    corpus: list[tuple[str, bytes]],
    queue: Layout,
    claimer: Claimer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatch = blog_dispatcher(tmp_path, monkeypatch)
    for name, data in corpus:
        key = push(queue, data)
        [waiting] = scan.entries(queue.new)
        claim = claimer.claim(waiting)
        assert claim is not None, name
        raw = claim.read()
        request = received(raw, claim.key, claim.attempt, queue.path, "test")
        assert (request.Data, request.From, request.To) == (data, SENDER.lower(), RECIPIENT), name
        outcome, handlers = dispatch(request)
        assert isinstance(outcome, HandedOff), f"{name}: {outcome}"
        assert handlers == "workers.posting.POSTING"
        claim.bury("the end of this test", handler=handlers)
        dead = operate.find(queue, key, ("dead",))
        assert operate.show(dead) == raw, name
        assert raw.endswith(data), name
        operate.delete(queue, dead)


def blog_dispatcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The blog's first queue, with nobody to answer to: what is tested here is what real mail does to it."""
    from conf.testing import settings
    from workers import blog

    monkeypatch.setattr(blog, "ROOT", str(tmp_path / "blog"))
    monkeypatch.setattr(settings, "relay", SimpleNamespace(deliver=_taken_as_bytes))
    monkeypatch.setattr(view, "LOADER", view.configured_loader(settings.template_config))
    return Dispatcher(Router, ["workers.posting"], queues_of={"workers.index": ["run/posts"]}).dispatch


def _taken_as_bytes(message: Any, From: str) -> None:
    assert message.to_message().as_bytes()
