"""Large messages that are coming: the writer keeps them in `tmp/`, not in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from maildefer.errors import MaildeferError
from maildefer.intake.outcomes import DueRefused
from maildefer.intake.writer.protocol import Message
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.push import Compose, Planned, Pusher

EnvelopeBlock = Callable[[str, Message, str], bytes]


class DraftStore:
    """The drafts of a writer, by number. A part of a message comes only once the one before is answered."""

    def __init__(self, pusher: Pusher, envelope_block: EnvelopeBlock) -> None:
        self._pusher = pusher
        self._envelope_block = envelope_block  # for a stem, a message and a recipient
        # Where the message begins, when it is due.
        self._drafts: dict[int, tuple[Draft, int, int | None]] = {}

    def add_part(self, message: Message) -> None:
        """Append a part; the first one makes the draft, for the first recipient. Raises what a push raises."""
        draft, offset, due = (
            self._drafts.pop(message.draft) if message.draft in self._drafts else self._begin_draft(message)
        )
        draft.append_all(message.pieces)
        draft.announce_sync()  # the disk works while the rest is on its way
        self._drafts[message.draft] = draft, offset, due

    def composes(self, message: Message) -> list[Compose]:
        """Append the last part: an entry for each recipient, the *first one last*, as the others copy its draft."""
        draft, offset, due = self._drafts.pop(message.draft)
        try:
            draft.append_all(message.pieces)
        except MaildeferError as fault:
            return [partial(fail, fault)] * len(message.recipients)
        others = [partial(self._copy, draft, offset, message, to) for to in message.recipients[1:]]
        return [*(planned(each, due) for each in others), lambda stem: draft]

    def drop_draft(self, number: int) -> None:
        """Drop a draft whose client has left or was refused."""
        if found := self._drafts.pop(number, None):
            found[0].discard()

    def drop_all(self) -> None:
        for number in list(self._drafts):
            self.drop_draft(number)

    def _begin_draft(self, message: Message) -> tuple[Draft, int, int | None]:
        due = due_of(self._pusher, message)
        draft = self._pusher.draft(due=due)
        try:
            top = self._envelope_block(draft.stem, message, message.recipients[0])
        except MaildeferError:
            draft.discard()
            raise
        draft.append(top)
        return draft, len(top), due

    def _copy(self, draft: Draft, offset: int, message: Message, recipient: str, stem: str) -> Draft:
        top = self._envelope_block(stem, message, recipient)
        copy = self._pusher.draft(stem)
        copy.append(top)
        copy.append_from(draft, offset)
        return copy


def due_of(pusher: Pusher, message: Message) -> int | None:
    """When a message is due, by the mount's time; None if at once. Raises DueRefused, StorageFault's kinds."""
    if message.after_seconds is None and not message.at:
        return None
    from datetime import datetime  # an SMTP front end needs none

    try:
        at = datetime.fromisoformat(message.at) if message.at else None
        return pusher.due(after=message.after_seconds, at=at)
    except (ValueError, OverflowError) as fault:
        raise DueRefused(str(fault)) from fault


def planned(compose: Compose, due: int | None) -> Compose:
    return compose if due is None else Planned(compose=compose, due=due)


def fail(fault: MaildeferError, stem: str) -> Draft:
    raise fault
