"""Helpers for an application's tests: conversations with the handlers in this process, and a look at what they sent.

In a `RouterConversation` nothing is sent anywhere: what handlers give to a `Relay` lands in the test queue.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from maildefer.mail import MailRequest, MailResponse
from maildefer.message import addresses
from maildefer.queue import Queue
from maildefer.routing import Router
from maildefer.server import Relay

__all__ = [
    "RouterConversation",
    "TestConversation",
    "assert_in_state",
    "clear_queue",
    "delivered",
    "queue",
    "relay",
]

TEST_QUEUE: Final = "run/queue"
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.02


def queue(queue_dir: str = "run/queue") -> Queue:
    """The queue that holds what was sent."""
    return Queue(queue_dir)


def clear_queue(queue_dir: str = "run/queue") -> None:
    """Empty it."""
    Queue(queue_dir).clear()


def relay(hostname: str = "127.0.0.1", port: int = 8824) -> Relay:
    """A relay to a server under test."""
    return Relay(hostname, port)


def delivered(pattern: str, to_queue: Queue | None = None) -> MailRequest | Literal[False]:
    """The first message in the queue (the test queue) whose text the regular expression matches, else False."""
    inbox = to_queue if to_queue is not None else queue()
    for key in sorted(inbox.keys()):
        message = inbox.get(key)
        if re.search(pattern, str(message)):
            return message
    return False


def assert_in_state(module: str, To: str, From: str, state: str) -> None:
    """The sender is in that state of that module, or AssertionError."""
    found = Router.get_state(module, MailRequest("test", From, To, b""))
    assert found == state, f"{From} is in {module}'s state {found}, not in {state}"


class RouterConversation:
    """One sender's conversation with the handlers that `Router` has loaded, in this process and without a server."""

    def __init__(self, From: str, Subject: str) -> None:
        self.From = From
        self.Subject = Subject
        self.queue = queue()

    def begin(self) -> None:
        """Empty the test queue and forget all states."""
        self.queue.clear()
        Router.clear_states()

    def say(
        self, To: str, Body: str, expect: str | None = None, Subject: str | None = None
    ) -> MailRequest | None:
        """Deliver one message; with `expect`, a message that it matches must have been sent, and is returned."""
        self.deliver(To, self.From, Subject or self.Subject, Body)
        return None if expect is None else self._expected(expect)

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> None:
        """Through `Router`; what the handlers raise comes through if `Router.LOG_EXCEPTIONS` is off."""
        sample = MailResponse(To=To, From=From, Subject=Subject, Body=Body)
        with _captured(self.queue):
            Router.deliver(MailRequest("localhost", From, To, sample.to_bytes()))

    def _expected(self, pattern: str) -> MailRequest:
        found = delivered(pattern, self.queue)
        assert found, f"no message in {self.queue.dir} matches {pattern!r}; it has {len(self.queue)}"
        return found


class TestConversation(RouterConversation):
    """The same over a relay, with a server that is up; what it sends must come to the test queue, too."""

    __test__ = False  # not one of pytest's, whatever its name says

    def __init__(self, relay_to_use: Any, From: str, Subject: str) -> None:
        super().__init__(From, Subject)
        self.relay = relay_to_use

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> None:
        self.relay.send(To, From, Subject, Body)

    def _expected(self, pattern: str) -> MailRequest:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not delivered(pattern, self.queue) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return super()._expected(pattern)


@contextmanager
def _captured(inbox: Queue) -> Iterator[None]:
    """What any relay of this process is given goes to the queue, one entry for each recipient."""

    def deliver(self: Relay, message: Any, To: addresses.Given = None, From: addresses.Given = None) -> None:
        sender, recipients = self.envelope_of(message, To, From)
        for recipient in recipients:
            inbox.push(message, sender=sender, recipient=recipient)

    original = Relay.deliver
    Relay.deliver = deliver  # type: ignore[method-assign]  # for the length of a delivery, and in tests only
    try:
        yield
    finally:
        Relay.deliver = original  # type: ignore[method-assign]
