"""Helpers for an application's tests: conversations with the handlers in this process, and a look at what they sent.

Tests never touch real mail. From its import on, whenever that is, what this process would put into a queue of the
project, or keep in one of its state stores, goes to the tests' own store: a folder that `store` or the variable
`MAILDEFER_TEST_STORE` names, else a temporary one. So does what handlers give to a `Relay`; only a `relay()` of this
module sends.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from maildefer.errors import MaildeferError
from maildefer.handling import finding, queues, settings
from maildefer.mail import MailRequest, MailResponse
from maildefer.maildir.layout import create_queue
from maildefer.message import addresses
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
    "queue",
    "relay",
    "store",
]

_SENT_TO: Final = "run/queue"
VARIABLE: Final = "MAILDEFER_TEST_STORE"
_PATIENCE_SECONDS = 10.0
_LOOK_SECONDS = 0.02

_folder: str | None = None
_projects: dict[str, None] = {}  # what lies in them is kept apart
_inbox: Queue | None = None  # of the conversation that goes on
_send: Final = getattr(Relay.deliver, "real", Relay.deliver)  # also if this module is loaded again


class RealQueueRefused(MaildeferError):
    """A helper for tests was pointed at a queue with mail that is not the tests'."""


def store(folder: str | None = None) -> str:
    """The folder of this process's tests, made where it is not there; from now on `folder`, if one is given.

    A relative one is the project's. Raises RealQueueRefused where the tests' queues would be those of the settings.
    """
    global _folder
    _begin()
    if folder is not None or _folder is None:
        _folder = _chosen(folder or os.environ.get(VARIABLE))
    return _folder


def __getattr__(name: str) -> str:
    """`TEST_QUEUE`: the path of the test queue, in the tests' store."""
    if name == "TEST_QUEUE":
        return queues.kept_apart(os.path.join(store(), _SENT_TO))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def queue(queue_dir: str = _SENT_TO) -> Queue:
    """The queue of that name in the tests' store; the default one holds what was sent.

    Raises RealQueueRefused for an absolute path of a queue that the settings name, or that somebody serves.
    """
    store()
    place = queues.located(queue_dir)
    if os.path.isabs(queue_dir) and place in _real_queues():
        raise RealQueueRefused(
            f"{place} is a queue of {_settings_name()}, whose mail is real: give its name in the settings, such as "
            f"{_SENT_TO!r}, for the tests' own in {_folder}"
        )
    place = queues.kept_apart(place)
    _refuse_served(place)
    create_queue(place)
    return Queue(place)


def clear_queue(queue_dir: str = _SENT_TO) -> None:
    """Empty the queue of that name in the tests' store. Raises RealQueueRefused, as `queue` does."""
    queue(queue_dir).clear()


def relay(hostname: str = "127.0.0.1", port: int = 8824) -> Relay:
    """A relay to a server under test: what it is given is sent there."""
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
    """The sender is in that state of that module, or AssertionError."""
    found = Router.get_state(module, MailRequest("test", From, To, b""))
    assert found == state, f"{From} is in {module}'s state {found}, not in {state}"


class RouterConversation:
    """One sender's conversation with the handlers that `Router` has loaded, in this process and without a server."""

    def __init__(self, From: str, Subject: str) -> None:
        self.From = From
        self.Subject = Subject
        self._queue: Queue | None = None
        store()

    @property
    def queue(self) -> Queue:
        """The test queue, unless another was set."""
        return self._queue or queue()

    @queue.setter
    def queue(self, chosen: Queue) -> None:
        self._queue = chosen

    def begin(self) -> None:
        """Empty the test queue and forget all states, both of the tests' store. Raises RealQueueRefused."""
        store()
        place = self.queue.layout.path
        if place in _real_queues():
            raise RealQueueRefused(
                f"this conversation's queue {place} is one of {_settings_name()}: leave it as it was made"
            )
        _refuse_served(place)
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
        with _answers_in(self.queue):
            Router.deliver(MailRequest("localhost", From, To, sample.to_bytes()))

    def _expected(self, pattern: str) -> MailRequest:
        found = delivered(pattern, self.queue)
        assert found, f"no message in {self.queue.dir} matches {pattern!r}; it has {len(self.queue)}"
        return found


class TestConversation(RouterConversation):
    """The same over a relay, with a server that is up; what it sends must come to the test queue, too.

    Start the server with its queues in the tests' store, as in `maildefer log --queue FOLDER/run/queue`.
    """

    __test__ = False  # not one of pytest's, whatever its name says

    def __init__(self, relay_to_use: Any, From: str, Subject: str) -> None:
        super().__init__(From, Subject)
        self.relay = relay_to_use
        if type(relay_to_use) is Relay:  # made for a server, whoever made it
            self.relay = relay(relay_to_use.hostname or "127.0.0.1", relay_to_use.port)
            vars(self.relay).update(vars(relay_to_use))

    def deliver(self, To: str, From: str, Subject: str, Body: str) -> None:
        self.relay.send(To, From, Subject, Body)

    def _expected(self, pattern: str) -> MailRequest:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not delivered(pattern, self.queue) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return super()._expected(pattern)


class _ServerRelay(Relay):
    def deliver(self, message: Any, To: addresses.Given = None, From: addresses.Given = None) -> None:
        _send(self, message, To, From)


def _keep(self: Relay, message: Any, To: addresses.Given = None, From: addresses.Given = None) -> None:
    """In the place of `Relay.deliver`: one entry for each recipient."""
    sender, recipients = self.envelope_of(message, To, From)
    inbox = _inbox if _inbox is not None else queue()
    for recipient in recipients:
        inbox.push(message, sender=sender, recipient=recipient)


vars(_keep)["real"] = _send


def _begin() -> None:
    """Any number of times. Raises RealQueueRefused in a process that handles real mail."""
    if queues.in_service:
        raise RealQueueRefused(
            "maildefer.testing is imported by a process that handles real mail: import it in tests only"
        )
    _projects[settings.project()] = None
    queues.apart = _apart
    if Relay.deliver is not _keep:
        Relay.deliver = _keep  # type: ignore[method-assign]  # in tests only


def _end() -> None:
    """Be an ordinary process again, for maildefer's own tests."""
    global _folder
    _folder = None
    _projects.clear()
    queues.apart = None
    Relay.deliver = _send  # type: ignore[method-assign]


def _apart(place: str) -> str:
    """Where tests have what else lies there: the same path below their store."""
    folder = store()
    if _is_in(folder, place):
        return place
    for project in sorted(_projects, key=len, reverse=True):
        if _is_in(project, place):
            return _made_for(os.path.join(folder, os.path.relpath(place, project)))
    if place in _real_queues():
        return _made_for(os.path.join(folder, "elsewhere", place.lstrip(os.sep)))
    return place


def _made_for(place: str) -> str:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    return place


def _chosen(folder: str | None) -> str:
    if folder is None:
        made = tempfile.mkdtemp(prefix="maildefer-tests-")
        atexit.register(_remove, made, os.getpid())
        return made
    place = queues.located(folder)
    real = _real_queues()
    mapped = {
        os.path.normpath(os.path.join(place, os.path.relpath(each, settings.project()))) for each in real
    }
    if clash := sorted(mapped & set(real)) or [each for each in real if _is_in(each, place)]:
        raise RealQueueRefused(
            f"tests can't have their store in {place}: {clash[0]} is a queue of {_settings_name()}; give another folder"
        )
    os.makedirs(place, exist_ok=True)
    return place


def _real_queues() -> list[str]:
    """Those of the settings, as far as there are any."""
    module = settings.loaded_settings()
    if module is None and finding.is_project():
        module = settings.load_settings()
    return [] if module is None else queues.listed_queues(module)


def _settings_name() -> str:
    return getattr(settings.loaded_settings(), "__file__", None) or "the settings"


def _refuse_served(place: str) -> None:
    try:
        leases = [name for name in os.listdir(f"{place}/.maildefer/leases") if not name.startswith(".")]
    except FileNotFoundError:  # no queue yet, or one that nobody has ever served
        return
    if leases:
        raise RealQueueRefused(
            f"somebody serves the queue {place} (`maildefer status {place}` tells who): "
            f"stop that, or give the tests a folder of their own, by {VARIABLE} or `store`"
        )


def _is_in(folder: str, place: str) -> bool:
    return place == folder or place.startswith(os.path.join(folder, ""))


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not in a child that it has forked
        shutil.rmtree(folder, ignore_errors=True)


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
