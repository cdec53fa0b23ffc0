"""Helpers for an application's tests: conversations with the handlers in this process, and the messages they sent.

Tests never touch real mail. As soon as this module is imported, everything that the process would put into a queue of
the project, or keep in one of its state stores, goes to the tests' own store: a folder that `store` or the variable
`MAILDEFER_TEST_STORE` names, else a temporary one. Messages that handlers give to a `Relay` go there too, into the
queue `TEST_QUEUE`; only a `relay()` of this module sends. The store is in `maildefer.handling.project.test_store`.
`every_crash` is in `maildefer.crash_points`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final, Literal

from maildefer import crash_points
from maildefer.handling.project import queue_paths, test_store
from maildefer.handling.project.test_store import RealQueueRefused, store
from maildefer.mail import MailRequest, MailResponse
from maildefer.maildir.layout import create_queue
from maildefer.message import addresses
from maildefer.message.outgoing.answer import is_withheld
from maildefer.queue import Queue
from maildefer.routing import Router
from maildefer.server import Relay

TEST_QUEUE: str  # given by `__getattr__`, since it is in the tests' store

__all__ = [
    "TEST_QUEUE",
    "RealQueueRefused",
    "RouterConversation",
    "TestConversation",
    "assert_in_state",
    "clear_queue",
    "delivered",
    "every_crash",
    "queue",
    "relay",
    "store",
]

_SENT_TO: Final = "run/queue"
_WAIT_SECONDS = 10.0
_LOOK_SECONDS = 0.02

_inbox: Queue | None = None  # of the current conversation
_send: Final = getattr(Relay.deliver, "real", Relay.deliver)  # also if this module is loaded again


def __getattr__(name: str) -> str:
    """`TEST_QUEUE`: the path of the test queue, in the tests' store."""
    if name == "TEST_QUEUE":
        return queue_paths.redirected(os.path.join(store(), _SENT_TO))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def queue(queue_dir: str = _SENT_TO) -> Queue:
    """The queue of that name in the tests' store; the default one holds the messages that were sent.

    Raises RealQueueRefused for an absolute path of a queue of the settings, or one that a pool or receiver serves.
    """
    _begin()
    place = test_store.test_queue_path(queue_dir)
    create_queue(place)
    return Queue(place)


def clear_queue(queue_dir: str = _SENT_TO) -> None:
    """Empty the queue of that name in the tests' store. Raises RealQueueRefused for a queue outside of it."""
    _begin()
    test_store.refuse_to_empty(test_store.test_queue_path(queue_dir))  # before it is made, or opened
    queue(queue_dir).clear()


def relay(hostname: str = "127.0.0.1", port: int = 8824) -> Relay:
    """A relay to a server under test, which does send."""
    return _ServerRelay(hostname, port)


def delivered(pattern: str, to_queue: Queue | None = None) -> MailRequest | Literal[False]:
    """The first message in the queue (the test queue) whose text the regular expression matches, else False."""
    inbox = to_queue if to_queue is not None else queue()
    for key in sorted(inbox.keys()):
        message = inbox.get(key)
        if re.search(pattern, str(message)):
            return message
    return False


def assert_in_state(module: str, To: str, From: str, state: str) -> None:
    """Raise AssertionError unless the sender is in that state of that module."""
    found = Router.get_state(module, MailRequest("test", From, To, b""))
    assert found == state, f"{From} is in {module}'s state {found}, not in {state}"


@wraps(crash_points.every_crash)
def every_crash(*arguments: Any, **named: Any) -> int:
    __tracebackhide__ = True  # for pytest
    _begin()
    return crash_points.every_crash(*arguments, **named)


class RouterConversation:
    """One sender's conversation with the handlers that `Router` has loaded, in this process and without a server."""

    def __init__(self, From: str, Subject: str) -> None:
        self.From = From
        self.Subject = Subject
        self._queue: Queue | None = None
        _begin()

    @property
    def queue(self) -> Queue:
        """The test queue, unless another was set."""
        return self._queue or queue()

    @queue.setter
    def queue(self, chosen: Queue) -> None:
        self._queue = chosen

    def begin(self) -> None:
        """Empty the test queue and delete all states, both in the tests' store. Raises RealQueueRefused."""
        _begin()
        self.queue.clear()
        Router.clear_states()

    def say(
        self, To: str, Body: str, expect: str | None = None, Subject: str | None = None
    ) -> MailRequest | None:
        """Deliver one message; with `expect`, a message that it matches must have been sent, and is returned."""
        self.deliver(To, self.From, Subject or self.Subject, Body)
        return None if expect is None else self._expected(expect)

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> None:
        """Deliver by `Router`; exceptions of handlers are raised if `Router.LOG_EXCEPTIONS` is off."""
        sample = MailResponse(To=To, From=From, Subject=Subject, Body=Body)
        with _answers_in(self.queue):
            Router.deliver(MailRequest("localhost", From, To, sample.to_bytes()))

    def _expected(self, pattern: str) -> MailRequest:
        found = delivered(pattern, self.queue)
        assert found, f"no message in {self.queue.dir} matches {pattern!r}; it has {len(self.queue)}"
        return found


class TestConversation(RouterConversation):
    """A conversation over a relay, with a running server, whose messages must come to the test queue.

    Start the server with its queues in the tests' store, as in `maildefer log --queue FOLDER/run/queue`.
    """

    __test__ = False  # no class of tests, in spite of its name

    def __init__(self, relay_to_use: Any, From: str, Subject: str) -> None:
        super().__init__(From, Subject)
        self.relay = relay_to_use
        if type(relay_to_use) is Relay:  # made for a server
            self.relay = relay(relay_to_use.hostname or "127.0.0.1", relay_to_use.port)
            vars(self.relay).update(vars(relay_to_use))

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> None:
        self.relay.send(To, From, Subject, Body)

    def _expected(self, pattern: str) -> MailRequest:
        deadline = time.monotonic() + _WAIT_SECONDS
        while not delivered(pattern, self.queue) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return super()._expected(pattern)


class _ServerRelay(Relay):
    def deliver(
        self, message: Any, To: addresses.Given = None, From: addresses.Given = None, *, now: bool = False
    ) -> None:
        _send(self, message, To, From, now=now)


def _keep(
    self: Relay, message: Any, To: addresses.Given = None, From: addresses.Given = None, *, now: bool = False
) -> None:
    """Replace `Relay.deliver`: push one entry for each recipient to the test queue.

    Where the relay puts messages into a queue, it is there when the handler has returned, and not if that raises.
    """
    sender, recipients = self.envelope_of(message, To, From)
    if is_withheld(message, recipients):
        return
    inbox = _inbox if _inbox is not None else queue()
    for recipient in recipients:
        inbox.push(message, sender=sender, recipient=recipient, now=now or not self.queue)


vars(_keep)["real"] = _send


def _begin() -> None:
    test_store.begin()
    if Relay.deliver is not _keep:
        Relay.deliver = _keep  # type: ignore[method-assign]  # in tests only


def _end() -> None:
    """Undo `_begin`, for maildefer's own tests."""
    test_store.end()
    Relay.deliver = _send  # type: ignore[method-assign]


@contextmanager
def _answers_in(inbox: Queue) -> Iterator[None]:
    global _inbox
    before, _inbox = _inbox, inbox
    _begin()
    try:
        yield
    finally:
        _inbox = before


_begin()
