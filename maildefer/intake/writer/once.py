"""Messages that are pushed once, however often they come: what the writer does of `maildir/idempotency`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from maildefer.errors import MaildeferError
from maildefer.intake.outcomes import QueueFull, Refusal, Stored, refusal_of
from maildefer.intake.writer.protocol import Message
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.idempotency.once import OncePusher
from maildefer.maildir.names import fresh_stem
from maildefer.maildir.push import Compose, Pusher
from maildefer.maildir.system import SYSTEM


class OnceWriter:
    """Any thread."""

    def __init__(self, pusher: Pusher, composes: Callable[[Message], list[Compose]], *, host: str) -> None:
        self._pusher = pusher
        self._host = host
        self._composes = composes
        self._once = OncePusher(pusher)

    def push(self, message: Message, shortage: str = "") -> list[Stored]:
        """Push a message, or find it pushed: the outcome for each recipient, for all of them the same.

        What was pushed is told of whatever is short.
        """

        def write() -> list[Draft]:
            if shortage:
                raise QueueFull(shortage)
            return self._write(message)

        try:
            answer = self._once.push(message.once, message.fingerprint, write)
        except MaildeferError as fault:
            return [Stored("", refusal_of(fault), str(fault))] * len(message.recipients)
        if answer.fingerprint != message.fingerprint:
            return [Stored("", Refusal.KEY_REUSED, "the key is another request's")] * len(message.recipients)
        return [Stored(key, is_repeated=answer.is_repeated) for _, key in answer.entries]

    def _write(self, message: Message) -> list[Draft]:
        """Write an entry for each recipient to `tmp/`, durable; all of them, or none."""
        drafts, composes = list[Draft](), self._composes(message)
        if message.draft:
            composes = [*composes[-1:], *composes[:-1]]  # see DraftStore.composes
        with ExitStack() as undo:
            for compose in composes:
                stem = fresh_stem(self._host, SYSTEM, getattr(compose, "due", None))
                made = compose(stem)
                if not isinstance(made, Draft):
                    chunks, made = made, self._pusher.draft(stem)
                    made.append_all(chunks)
                undo.callback(made.discard)
                made.sync()
                drafts.append(made)
            undo.pop_all()
        return drafts
