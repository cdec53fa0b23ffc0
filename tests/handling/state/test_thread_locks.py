"""Conversation tokens among threads."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED, Outcome
from maildefer.handling.routes import RoutingBase
from maildefer.handling.state.storage import MemoryStorage
from maildefer.handling.state.thread_locks import ThreadLocks
from maildefer.message.request import MailRequest
from tests.lifecycle.project import eventually


def test_a_conversation_has_one_thread_at_a_time() -> None:
    locks = ThreadLocks(wait_seconds=0)
    assert locks.take_token("ann")
    assert not locks.take_token("ann")
    assert locks.take_token("bob")
    locks.release_token("ann")
    assert locks.take_token("ann")


def test_who_waits_gets_the_turn_when_it_is_given_back() -> None:
    locks, got = ThreadLocks(wait_seconds=30), []
    assert locks.take_token("ann")
    waiting = threading.Thread(target=lambda: got.append(locks.take_token("ann")))
    waiting.start()
    locks.release_token("ann")
    waiting.join(30)
    assert got == [True]


def test_who_came_first_is_first() -> None:
    locks, order = ThreadLocks(wait_seconds=30), []

    def wait(number: int) -> None:
        assert locks.take_token("ann")
        order.append(number)
        locks.release_token("ann")

    assert locks.take_token("ann")
    threads = [threading.Thread(target=wait, args=[number]) for number in range(8)]
    for number, thread in enumerate(threads):
        thread.start()
        eventually(lambda number=number: len(locks._waiting["ann"]) == number + 2, "it waits")  # type: ignore[misc]
    locks.release_token("ann")
    for thread in threads:
        thread.join(30)
    assert order == list(range(8))


def test_who_has_waited_in_vain_is_in_nobodys_way() -> None:
    locks = ThreadLocks(wait_seconds=0)
    assert locks.take_token("ann")
    assert not locks.take_token("ann")
    locks.release_token("ann")
    assert locks.take_token("ann")
    locks.release_token("ann")
    assert locks._waiting == {}, "nothing is kept of conversations that nobody is in"


class MeetingStorage(MemoryStorage):
    """Whoever reads a state waits for another reader of the same, for so long, until two have met."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.meeting = threading.Barrier(2, timeout=seconds)
        self.have_met = False

    def get(self, key: str, sender: str | None) -> str:
        state = super().get(key, sender)
        if not self.have_met:
            try:
                self.meeting.wait()
                self.have_met = True
            except threading.BrokenBarrierError:
                self.meeting.reset()
        return state


def START(message: Any) -> object:
    return END


def END(message: Any) -> object:
    return START


@pytest.mark.parametrize("tokens", [None, ThreadLocks()], ids=["without", "with"])
def test_two_messages_of_a_conversation_never_see_the_same_state(
    tokens: ThreadLocks | None, tmp_path: Path
) -> None:
    router = RoutingBase()
    router.STATE_STORE = MeetingStorage(60 if tokens is None else 0.2)
    for function in (START, END):
        router.register_route("^a@x$", function)
    dispatcher = Dispatcher(router, tokens=tokens)
    ran: list[tuple[Outcome, str]] = []
    threads = [
        threading.Thread(target=lambda: ran.append(dispatcher.dispatch(MailRequest("", "b@x", "a@x", b""))))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    names = {name.rpartition(".")[2] for _, name in ran}
    assert [outcome for outcome, _ in ran] == [ACKED, ACKED]
    assert names == ({"START"} if tokens is None else {"START", "END"})
