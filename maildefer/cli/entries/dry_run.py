"""Running the handlers of a message in this process, with what they push and send caught: nothing is stored or settled.

What a handler does by other means, in a database or over HTTP, it does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from maildefer.errors import MaildeferError
from maildefer.handling.application import Application
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import Outcome
from maildefer.handling.project import queue_paths
from maildefer.handling.routes import RoutingBase
from maildefer.handling.state.storage import StateStorage
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Marked, Markers
from maildefer.maildir.operator.entries import FoundEntry, read_found
from maildefer.maildir.push import Pusher
from maildefer.message import once
from maildefer.message.envelope import split
from maildefer.message.outgoing.answer import is_withheld
from maildefer.message.outgoing.relay import Relay
from maildefer.message.request import MailRequest, bytes_of, received
from maildefer.queue import Queue

Effect = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What became of a message, or would."""

    handlers: str
    outcome: Outcome
    effects: list[Effect]


class _States(StateStorage):
    """The states of a store, and those that handlers have set meanwhile, which it does not get."""

    def __init__(self, real: StateStorage, effects: list[Effect]) -> None:
        self._real, self._effects = real, effects
        self._set: dict[tuple[str, str | None], str] = {}

    def get(self, key: str, sender: str | None) -> str:
        return self._set.get((key, sender)) or self._real.get(key, sender)

    def set(self, key: str, sender: str | None, state: str) -> None:
        self._set[key, sender] = state
        self._effects.append({"effect": "state", "of": key, "sender": sender or "", "state": state})

    def clear(self) -> None:
        raise MaildeferError("no states are cleared in a dry run")


@dataclass(slots=True)
class DryRunner:
    """Runs handlers of one queue, which are loaded at the first message. Raises ConfigurationError."""

    layout: Layout
    _dispatcher: Dispatcher | None = None
    _effects: list[Effect] = field(default_factory=list)

    def run(self, found: FoundEntry) -> DryRun:
        """Run the handlers of an entry's message. Raises what reading it raises."""
        message = received(read_found(found), found.key, 1, self.layout.path, self.layout.path)
        self._effects.clear()
        with redirect_stdout(sys.stderr), self._caught():
            if self._dispatcher is None:
                application = Application.load()
                application.router.STATE_STORE = _States(application.router.STATE_STORE, self._effects)
                self._dispatcher = application.dispatcher(self.layout.path)
            outcome, handlers = self._dispatcher.dispatch(message)
        return DryRun(handlers=handlers, outcome=outcome, effects=[*self._effects])

    @contextmanager
    def _caught(self) -> Iterator[None]:
        """Have what changes a queue, or sends, noted here instead."""
        noted = self._effects

        def pushed(pusher: Any, compose: Any) -> str:
            stem = f"{len(noted) + 1}.dry-run"
            noted.append({"effect": "push", "queue": pusher.layout.path, **_facts(compose(stem), compose)})
            return stem

        def delivered(
            relay: Relay, message: Any, To: Any = None, From: Any = None, *, now: bool = False
        ) -> None:
            sender, recipients = relay.envelope_of(message, To, From)
            if not is_withheld(message, recipients):
                told = {"sender": sender, "recipients": [*recipients], **_subject(bytes_of(message))}
                noted.append({"effect": "send", **told})

        def changed(what: str, result: object) -> Callable[..., object]:
            def change(queue: Queue, key: str = "", **options: object) -> object:
                noted.append({"effect": what, "queue": queue.layout.path, "key": key})
                return result

            return change

        def refused(*arguments: object, **options: object) -> None:
            raise MaildeferError("a dry run takes no messages out of queues")

        with ExitStack() as stack:
            for owner, name, instead in (
                (Pusher, "push", pushed),
                (Pusher, "push_all", lambda pusher, composes: [pushed(pusher, one) for one in composes]),
                (Pusher, "push_together", lambda pusher, composes: [pushed(pusher, one) for one in composes]),
                (
                    Markers,
                    "push",
                    lambda markers, unique, one: Marked(pushed(_Of(markers), one), is_new=True),
                ),
                (Relay, "deliver", delivered),
                (Queue, "cancel", changed("cancel", True)),
                (Queue, "reschedule", changed("reschedule", None)),
                (Queue, "remove", changed("remove", None)),
                (Queue, "clear", changed("clear", None)),
                (Queue, "pop", lambda queue: (None, None)),
                (Queue, "consumer", refused),
                (RoutingBase, "clear_states", refused),
                (once, "home_of", lambda message: None),
                (queue_paths, "redirect", lambda place: place),  # deliveries go to a relay then
            ):
                stack.enter_context(patch.object(owner, name, instead))
            yield


class _Of:
    def __init__(self, markers: Any) -> None:
        self.layout: Layout = markers._layout


def _facts(chunks: Any, compose: Any) -> dict[str, Any]:
    data = b"".join(bytes(one) for one in chunks)
    envelope, offset = split(data)
    facts = {} if envelope is None else {"sender": envelope.sender, "recipients": [envelope.recipient]}
    due = getattr(compose, "due", None)
    return facts | ({} if due is None else {"due_time": due}) | _subject(data[offset:])


def _subject(data: bytes) -> dict[str, str]:
    return {"subject": str(MailRequest(None, None, None, data)["Subject"] or "")}
