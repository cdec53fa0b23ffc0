"""`message.once`: true until it is done, interrupted where nobody knows, and false for good."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import EffectLost, EffectNameRefused, EffectOpen, MessageHasNoKey
from maildefer.handling.project import queue_paths, settings
from maildefer.maildir.idempotency.effects import Effect
from maildefer.maildir.layout import Layout, create_queue
from maildefer.message.once import Once
from maildefer.message.request import MailRequest, received

KEY = "1700000000.M1P2Q3R4.host,S=5"
DATA = b"Subject: x\n\nText.\n"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return create_queue(str(tmp_path / "queue"))


@pytest.fixture
def queue(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(settings, "loaded_settings", lambda: None)
    return layout.path


def mail(queue: str | None, key: str | None = KEY, data: bytes = DATA, attempt: int = 1) -> MailRequest:
    return received(data, key, attempt, queue, "test")


def told(first: Once) -> tuple[bool, bool]:
    return bool(first), first.interrupted


TO_DO, UNSURE, DONE = (True, False), (True, True), (False, False)


def once(message: MailRequest, name: str = "invoice-17") -> tuple[bool, bool]:
    with message.once(name) as first:
        return told(first)


def test_a_block_that_has_ended_is_done_for_each_later_attempt(queue: str) -> None:
    assert once(mail(queue)) == TO_DO
    assert once(mail(queue, attempt=2)) == DONE
    assert once(mail(queue, attempt=1)) == DONE  # as a requeued dead letter


def test_a_block_that_has_raised_is_interrupted_as_its_effect_may_have_happened(queue: str) -> None:
    with pytest.raises(ValueError, match="after the effect"), mail(queue).once("invoice-17"):
        raise ValueError("after the effect")
    assert once(mail(queue)) == UNSURE
    assert once(mail(queue)) == DONE


def test_names_bytes_and_keys_are_told_apart(queue: str) -> None:
    """Another user who pushes entries may choose the key of another entry."""
    assert once(mail(queue)) == TO_DO
    assert once(mail(queue), "invoice-18") == TO_DO
    assert once(mail(queue, data=b"Subject: y\n\n")) == TO_DO
    assert once(mail(queue, key="1700000000.M1P2Q3R5.host,S=5")) == TO_DO
    assert once(mail(queue)) == DONE


def test_blocks_of_several_names_may_be_nested_and_each_ends_by_itself(queue: str) -> None:
    message = mail(queue)

    def handler() -> None:
        with message.once("charge") as charge:
            with message.once("mail") as sent:
                assert (told(charge), told(sent)) == (TO_DO, TO_DO)
            raise OSError("between")

    with pytest.raises(OSError, match="between"):
        handler()
    assert (once(message, "charge"), once(message, "mail")) == (UNSURE, DONE)


def test_a_block_within_one_of_the_same_name_is_refused_and_the_outer_one_goes_on(queue: str) -> None:
    message = mail(queue)
    with message.once("invoice-17") as first:
        with pytest.raises(EffectOpen, match="its own name"), message.once("invoice-17"):
            pass
        assert first
    assert once(message) == DONE


def test_one_value_is_for_one_block(queue: str) -> None:
    first = mail(queue).once("invoice-17")
    with pytest.raises(TypeError, match=r"with message\.once\('invoice-17'\) as first"):
        assert first
    with first:
        pass
    with pytest.raises(EffectOpen), first:
        pass


def test_who_has_lost_its_claim_is_told_so_where_another_attempt_has_begun(
    queue: str, layout: Layout
) -> None:
    message = mail(queue)
    first = message.once("invoice-17")
    effect: Any = first._effect
    with pytest.raises(EffectLost, match="may be done twice"), first:
        Effect(layout, os.path.basename(effect.path), b"").begin()
    assert once(message) == UNSURE


@pytest.mark.parametrize(
    ("name", "why"), [("", "0 bytes"), ("x" * (1 << 20), "1048576 bytes"), ("\ud800", "surrogate")]
)
def test_a_name_that_is_empty_or_too_long_is_refused(queue: str, name: str, why: str) -> None:
    with pytest.raises(EffectNameRefused, match=why):
        mail(queue).once(name)


def test_what_is_no_text_is_refused(queue: str) -> None:
    wrong: Any = 17
    with pytest.raises(TypeError, match="give text"):
        mail(queue).once(wrong)


def test_any_text_is_a_name(queue: str) -> None:
    for name in ("../../x", "a\0b", "a/b", "\n", "ü" * 512):
        assert once(mail(queue), name) == TO_DO
        assert once(mail(queue), name) == DONE


def test_a_message_that_is_from_no_queue_is_refused(queue: str) -> None:
    for message in (mail(queue, key=None), mail(None), MailRequest("test", "a@b.c", "d@e.f", "x")):
        with pytest.raises(MessageHasNoKey, match="from no queue"):
            message.once("invoice-17")


def test_in_tests_such_a_message_remembers_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_paths, "redirect", lambda place: place)
    message = mail(None, key=None)
    with pytest.raises(ValueError, match="x"), message.once("a"):
        raise ValueError("x")
    assert (once(message, "a"), once(message, "a"), once(message, "b")) == (UNSURE, DONE, TO_DO)
    assert once(mail(None, key=None), "a") == TO_DO


def test_what_one_queue_remembers_is_known_after_a_handoff(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings:
        first_queue = layout.path

    monkeypatch.setattr(settings, "loaded_settings", lambda: object())
    monkeypatch.setattr(settings, "pool_settings", lambda module: Settings)
    assert once(mail("run/first")) == TO_DO
    assert once(mail("run/other")) == DONE


# Async


def test_async_with_does_the_same_while_the_event_loop_goes_on(queue: str) -> None:
    threads = []

    async def handler(message: MailRequest) -> tuple[bool, bool]:
        async with message.once("invoice-17") as first:
            threads.append(threading.current_thread())
            return told(first)

    assert asyncio.run(handler(mail(queue))) == TO_DO
    assert asyncio.run(handler(mail(queue))) == DONE
    assert set(threads) == {threading.main_thread()}


@pytest.fixture
def slow_begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    begins, go_on, real = threading.Event(), threading.Event(), Effect.begin

    def begin(effect: Effect) -> Any:
        begins.set()
        assert go_on.wait(10)
        return real(effect)

    monkeypatch.setattr(Effect, "begin", begin)
    yield begins, go_on
    go_on.set()


def test_a_handler_that_is_cancelled_as_it_begins_keeps_nobody_from_it(
    queue: str, slow_begin: tuple[threading.Event, threading.Event]
) -> None:
    begins, go_on = slow_begin

    async def handler(message: MailRequest) -> None:
        async with message.once("invoice-17"):
            raise AssertionError("it was cancelled before")

    async def cancelled() -> tuple[bool, bool]:
        task = asyncio.ensure_future(handler(mail(queue)))
        await asyncio.to_thread(begins.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        while True:
            try:
                async with mail(queue).once("invoice-17") as first:
                    return told(first)
            except EffectOpen:  # the thread has not ended yet
                await asyncio.sleep(0)

    assert asyncio.run(asyncio.wait_for(cancelled(), 20)) == UNSURE
