"""`message.once`: true until it is done, interrupted where nobody knows, and false for good."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import EffectLost, EffectNameRefused, MessageHasNoKey, NoSpace
from maildefer.handling.outcomes import Deferred
from maildefer.handling.project import queue_paths, settings
from maildefer.handling.results import outcome_of
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


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_a_block_within_one_of_the_same_name_takes_it_from_the_outer_one(
    queue: str, monkeypatch: pytest.MonkeyPatch, is_in_memory: bool
) -> None:
    monkeypatch.setattr(queue_paths, "redirect", lambda place: place)
    message = mail(None if is_in_memory else queue)
    with pytest.raises(EffectLost, match="a block within this one"), message.once("invoice-17"):
        assert once(message) == UNSURE
    assert once(message) == DONE


def test_one_value_is_for_one_block(queue: str) -> None:
    first = mail(queue).once("invoice-17")
    with pytest.raises(TypeError, match=r"with message\.once\('invoice-17'\) as first"):
        assert first
    with first:
        pass
    with pytest.raises(TypeError, match="for each block"), first:
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


@pytest.mark.parametrize("step", ["begin", "end"])
def test_what_cannot_be_recorded_defers_the_message_and_is_no_failure(
    step: str, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NoSpace("/queue", OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(Effect, step, full)
    with pytest.raises(NoSpace) as raised:
        once(mail(queue))
    for fault in (raised.value, ExceptionGroup("tasks", [raised.value])):
        outcome = outcome_of(fault, "workers.shop")
        assert isinstance(outcome, Deferred)
        assert (outcome.error, outcome.reason) == (None, str(raised.value))
    with pytest.raises(NoSpace) as raised:
        full()  # as a push of the handler's own
    assert getattr(outcome_of(raised.value, "workers.shop"), "error", None) is not None


@pytest.mark.parametrize(
    ("name", "why"), [("", "is empty"), ("x" * (1 << 20), "1048576 bytes"), ("\ud800", "surrogate")]
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
