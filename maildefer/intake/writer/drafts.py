"""Large messages on their way: the writer keeps them in `tmp/` as they come, not in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from maildefer.errors import MaildeferError
from maildefer.intake.writer.protocol import Message
from maildefer.maildir.draft import Draft
from maildefer.maildir.push import Compose, Pusher

Top = Callable[[str, Message, str], bytes]


class DraftStore:
    """The drafts of a writer, by number. Of one message the next part comes only when the last one is answered."""

    def __init__(self, pusher: Pusher, top: Top) -> None:
        self._pusher = pusher
        self._top = top  # the block for a stem, a message and a recipient
        self._drafts: dict[int, tuple[Draft, int]] = {}  # and where the message begins in it

    def add(self, message: Message) -> None:
        """Append a part; the first one opens the draft, which is its first recipient's. Raises what a push raises."""
        draft, offset = (
            self._drafts.pop(message.draft) if message.draft in self._drafts else self._begun(message)
        )
        draft.append_all(message.pieces)
        draft.announce_sync()  # the disk works while the rest is on its way
        self._drafts[message.draft] = draft, offset

    def composes(self, message: Message) -> list[Compose]:
        """The last part has come: an entry for each recipient, the *first last*: the others copy its draft."""
        draft, offset = self._drafts.pop(message.draft)
        try:
            draft.append_all(message.pieces)
        except MaildeferError as fault:
            return [partial(_fail, fault)] * len(message.recipients)
        others = [partial(self._copied, draft, offset, message, to) for to in message.recipients[1:]]
        return [*others, lambda stem: draft]

    def drop(self, number: int) -> None:
        """The client has gone, or was refused."""
        if found := self._drafts.pop(number, None):
            found[0].discard()

    def drop_all(self) -> None:
        for number in list(self._drafts):
            self.drop(number)

    def _begun(self, message: Message) -> tuple[Draft, int]:
        draft = self._pusher.draft()
        try:
            top = self._top(draft.stem, message, message.recipients[0])
        except MaildeferError:
            draft.discard()
            raise
        draft.append(top)
        return draft, len(top)

    def _copied(self, draft: Draft, offset: int, message: Message, recipient: str, stem: str) -> Draft:
        top = self._top(stem, message, recipient)
        copy = self._pusher.draft(stem)
        copy.append(top)
        copy.append_from(draft, offset)
        return copy


def _fail(fault: MaildeferError, stem: str) -> Draft:
    raise fault
