"""Handlers whose worker dies after each effect: the sound pass, and a double effect is named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer import testing
from maildefer.crash_points import every_crash
from maildefer.errors import HandlerNotRun
from maildefer.handling.tasks.task import Task
from maildefer.mail import MailRequest, MailResponse
from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, Router
from maildefer.server import Relay


@pytest.fixture(autouse=True)
def in_store(tmp_path: Path) -> Iterator[None]:
    testing._begin()
    testing.store(str(tmp_path))
    yield
    testing._end()


def mail() -> MailRequest:
    return MailRequest("test", "ann@example.org", "post@osb.example", "Subject: x\n\nText.\n")


def test_a_push_under_a_unique_key_is_made_once() -> None:
    def handler(message: MailRequest) -> None:
        testing.queue("run/posts").push(message, unique=f"post {message.key}")
        testing.queue("run/posts").push(message, unique=f"index {message.key}")

    assert every_crash(handler, mail()) == 2


def test_a_plain_push_is_made_twice_and_named() -> None:
    def handler(message: MailRequest) -> None:
        testing.queue("run/posts").push(message, recipient="bob@example.org")
        Relay().deliver(message, To="ann@example.org")

    with pytest.raises(
        AssertionError, match=r"twice: push to \S*posts for bob@example.org\. Its worker died after push"
    ):
        every_crash(handler, mail())


def test_what_may_be_repeated_is_said() -> None:
    def handler(message: MailRequest) -> None:
        Relay().deliver(MailResponse(To="ann@example.org", From="a@b.c", Subject="x", Body="y"))

    assert every_crash(handler, mail(), may_repeat=("deliver",)) == 1
    with pytest.raises(AssertionError, match="deliver to ann@"):
        every_crash(handler, mail())


def test_an_answer_that_is_noted_after_it_was_sent_may_come_twice(tmp_path: Path) -> None:
    """The death between the two is the one that a note can't help against."""

    def handler(message: MailRequest) -> None:
        note = tmp_path / str(message.key)
        if not note.exists():
            testing.queue("run/first").push(message)
            note.touch()
        testing.queue("run/second").push(message, unique=str(message.key))

    with pytest.raises(AssertionError, match="run/first"):
        every_crash(handler, mail())


def test_a_task_that_is_deferred_twice_is_found_by_name_and_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Task, "_push", lambda self, arguments, named, options: "1.M1")
    rebuild = Task(_rebuild, "run/posts")

    def handler(message: MailRequest) -> None:
        rebuild.defer(7)

    with pytest.raises(AssertionError, match=r"defer \S*_rebuild\[\[7\], \{\}\]"):
        every_crash(handler, mail())


def test_effects_that_differ_from_run_to_run_are_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "_push", lambda self, arguments, named, options: "1.M1")
    rebuild = Task(_rebuild, "run/posts")
    numbers = iter(range(10))

    def handler(message: MailRequest) -> None:
        rebuild.defer(next(numbers))

    with pytest.raises(
        AssertionError, match=r"did defer \S*_rebuild\[\[1\], \{\}\], and not in its first run"
    ):
        every_crash(handler, mail())


def test_an_argument_made_of_the_messages_key_is_the_same_in_each_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Task, "_push", lambda self, arguments, named, options: "1.M1")
    look = Task(_look, "run/posts")
    seen: set[str] = set()

    def handler(message: MailRequest) -> None:
        if (key := str(message.key)) not in seen or message.attempt == 1:
            seen.add(key)
            look.defer(key)

    assert every_crash(handler, mail()) == 1


def test_a_state_that_is_written_again_is_the_same_state() -> None:
    def handler(message: MailRequest) -> None:
        Router.set_state("app.lists", message, "CONFIRMING")

    assert every_crash(handler, mail()) == 1


def test_each_of_a_batch_has_a_key_of_its_own_and_the_number_of_its_attempt() -> None:
    seen: list[tuple[str | None, int | None]] = []

    def handler(messages: list[MailRequest]) -> None:
        seen.extend((message.key, message.attempt) for message in messages)
        testing.queue("run/posts").push(messages[0], unique=str(messages[0].key))

    every_crash(handler, [mail(), mail()])
    assert [attempt for _, attempt in seen] == [1, 1, 1, 1, 2, 2]
    assert len({key for key, _ in seen}) == 4


def test_a_handlers_own_exception_is_raised_and_nothing_stays_watched() -> None:
    push = Queue.push

    def handler(message: MailRequest) -> None:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        every_crash(handler, mail())
    assert Queue.push is push


def test_an_async_handler_dies_after_each_of_its_effects_too() -> None:
    async def sound(message: MailRequest) -> None:
        await asyncio.sleep(0)
        testing.queue("run/posts").push(message, unique=str(message.key))

    async def twice(message: MailRequest) -> None:
        await asyncio.to_thread(testing.queue("run/posts").push, message)

    assert every_crash(sound, mail()) == 1
    with pytest.raises(AssertionError, match="twice did it twice: push"):
        every_crash(twice, mail())


def test_a_generator_is_refused_since_no_effect_of_it_happens() -> None:
    def handler(message: MailRequest) -> Iterator[None]:
        yield

    with pytest.raises(HandlerNotRun, match="handler returned a generator, and nobody runs it"):
        every_crash(handler, mail())


def test_a_batch_may_return_which_of_its_messages_are_deferred() -> None:
    def handler(messages: list[MailRequest]) -> dict[MailRequest, Exception]:
        testing.queue("run/posts").push(messages[0], unique=str(messages[0].key))
        return {messages[1]: Defer("later")}

    assert every_crash(handler, [mail(), mail()]) == 1


@pytest.mark.parametrize("fault", [Defer("later"), Reject("never"), OSError("no disk")])
@pytest.mark.parametrize("attempt", [1, 2])
def test_what_a_handler_raises_in_either_attempt_ends_the_trial(fault: Exception, attempt: int) -> None:
    def handler(message: MailRequest) -> None:
        if message.attempt == attempt:
            raise fault
        testing.queue("run/posts").push(message, unique=str(message.key))

    with pytest.raises(type(fault)) as raised:
        every_crash(handler, mail())
    assert raised.value is fault


def test_a_dead_worker_has_no_effect_in_what_it_cleans_up(tmp_path: Path) -> None:
    def handler(message: MailRequest) -> None:
        try:
            testing.queue("run/posts").push(message, unique=f"a{message.key}")
        finally:
            testing.queue("run/posts").push(message, unique=f"b{message.key}")

    assert every_crash(handler, mail()) == 2


def test_before_puts_back_what_a_handler_has_changed(tmp_path: Path) -> None:
    note = tmp_path / "note"

    def handler(message: MailRequest) -> None:
        if not note.exists():
            note.touch()
            testing.queue("run/posts").push(message)

    def before() -> None:
        note.unlink(missing_ok=True)

    assert every_crash(handler, mail(), before=before) == 1
    assert os.path.exists(note)


def _rebuild(number: int) -> None: ...


def _look(key: str) -> None: ...


def test_what_an_earlier_run_has_left_is_named_where_it_hides_an_effect() -> None:
    def handler(message: MailRequest) -> None:
        for key in ("front page", "last page"):
            testing.queue("run/posts").push(MailResponse(To="a@b", From="c@d", Body="x"), unique=key)

    with pytest.raises(AssertionError, match=r"had 2 effects and then 0.*before=lambda: clear_queue"):
        every_crash(handler, MailRequest("test", "ann@x", "bob@y", b""))
    before = lambda: testing.clear_queue("run/posts")  # noqa: E731
    assert every_crash(handler, MailRequest("test", "ann@x", "bob@y", b""), before=before) == 2


def test_a_handler_that_asks_the_other_side_where_once_was_interrupted_is_sound() -> None:
    invoices: set[str] = set()

    def handler(message: MailRequest) -> None:
        with message.once("invoice-17") as first:
            if first and not (first.interrupted and message.key in invoices):
                invoices.add(str(message.key))
                testing.queue("run/posts").push(message, recipient="bob@example.org")

    assert every_crash(handler, mail(), before=invoices.clear) == 3
    assert every_crash(handler, mail(), before=invoices.clear) == 3


def test_each_message_of_a_batch_remembers_its_own_under_one_name() -> None:
    invoices: set[str] = set()

    def handler(messages: list[MailRequest]) -> None:
        for message in messages:
            with message.once("invoice") as first:
                if first and not (first.interrupted and message.key in invoices):
                    invoices.add(str(message.key))
                    testing.queue("run/posts").push(message, recipient="bob@example.org")

    assert every_crash(handler, [mail(), mail()], before=invoices.clear) == 6


def test_one_that_does_it_again_where_once_was_interrupted_is_named() -> None:
    def handler(message: MailRequest) -> None:
        with message.once("invoice-17") as first:
            if first:
                testing.queue("run/posts").push(message, recipient="bob@example.org")

    with pytest.raises(AssertionError, match=r"twice: push to .*block of message\.once"):
        every_crash(handler, mail())


def test_what_follows_a_block_of_once_is_not_protected_by_it() -> None:
    def handler(message: MailRequest) -> None:
        with message.once("invoice-17") as first:
            pass
        if first:
            Relay().deliver(message, To="ann@example.org")
        Relay().deliver(message, To="bob@example.org")

    with pytest.raises(AssertionError, match="deliver to bob@"):
        every_crash(handler, mail())


def test_arguments_that_are_no_messages_may_be_anything() -> None:
    assert every_crash(lambda *arguments: None, "text", {"a": 1}, [1, 2], None) == 0


def test_keys_of_one_call_are_no_keys_of_the_next() -> None:
    def handler(message: MailRequest) -> None:
        testing.queue("run/posts").push(message, unique=message.key)

    assert [every_crash(handler, mail()) for _ in range(2)] == [1, 1]


def test_a_death_in_a_group_of_tasks_is_one() -> None:
    async def push(message: MailRequest, name: str) -> None:
        testing.queue("run/posts").push(message, unique=f"{name} {message.key}")

    async def handler(message: MailRequest) -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(push(message, name))

    assert every_crash(handler, mail()) == 2

    async def fails(message: MailRequest) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.to_thread(lambda: 1 / 0))

    with pytest.raises(ExceptionGroup):
        every_crash(fails, mail())


def test_a_failure_is_shown_without_the_lines_of_this_package() -> None:
    def twice(message: MailRequest) -> None:
        testing.queue("run/posts").push(message)

    with pytest.raises(AssertionError) as raised:
        testing.every_crash(twice, mail())
    assert {str(line.path) for line in raised.traceback.filter(raised)} == {__file__}
