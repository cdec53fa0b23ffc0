"""What makes a message an answer: which message it answers, and the fields that say so (RFC 5322, RFC 3834)."""

from __future__ import annotations

import re
from typing import Final, cast

from maildefer import events, log_context
from maildefer.message import addresses
from maildefer.message.request import MailRequest
from maildefer.message.response import MailResponse

_MOST_IDS: Final = 20
# Without what could end an id, a line or a comment; RFC 5536 allows 250 characters.
_ID: Final = re.compile(r"<[!#-'*-;=?A-\[\]-~]{1,180}@[!#-'*-;=?A-\[\]-~]{1,180}>").findall


def answered_by(message: object, recipients: list[str]) -> MailRequest | None:
    """The message that `message` answers; None if it answers none.

    It is the one that `answers` names. Without that, in a handler, it is the handled one, if the answer goes to its
    author, perhaps among others, names the author in To or Cc, and is not in the author's name: a list that sends on
    what it was sent, to itself, answers nobody.
    """
    if not isinstance(message, MailResponse):
        return None
    if message.answers is not None:
        return message.answers
    about = log_context.current()
    if about is None:
        return None
    handled = about[0] if isinstance(about[0], list) else [about[0]]
    to, cc, by = (
        {one.lower() for one in addresses.every(message.base.raw(name))} for name in ("to", "cc", "from")
    )
    given = {one.lower() for one in recipients}
    found = [
        one
        for one in handled
        if isinstance(one, MailRequest)
        and (authors := _authors(one, len(handled))) & given & (to | cc or given)
        and not by & authors
    ]
    return found[0] if len(found) == 1 else None


def is_withheld(message: object, recipients: list[str]) -> bool:
    """Whether the message is an answer to an automatic one, that does not say itself what it is; tells the log."""
    answered = answered_by(message, recipients)
    if answered is None or "Auto-Submitted" in cast(MailResponse, message):
        return False
    if sign := answered.automatic_sign:
        events.emit("answer.withheld", to=recipients[0], sign=sign, **log_context.facts())
    return sign is not None


def _authors(message: MailRequest, messages: int) -> set[str]:
    """The addresses to which an answer goes; in a batch only the envelope's, since each header costs a parse."""
    if messages > 1:
        return {message.From}
    named = (message._readable().raw(name) for name in ("from", "reply-to"))
    return {message.From, *(one.lower() for raw in named for one in addresses.every(raw))}


def thread_fields(answered: MailRequest) -> bytes:
    """`In-Reply-To` and `References` (RFC 5322, section 3.6.4); nothing if the message answered has no valid id.

    Of a long thread the first message and the last ones are named. Ids that are not in order are left out.
    """
    head = answered._readable()
    own = _ID(head.raw("message-id") or "")[:1]
    if not own:
        return b""
    before = _ID(head.raw("references") or "")
    if not before:
        parents = _ID(head.raw("in-reply-to") or "")
        before = parents if len(parents) == 1 else []
    chain = [one for one in dict.fromkeys(before) if one != own[0]] + own
    chain = chain if len(chain) <= _MOST_IDS else chain[:1] + chain[1 - _MOST_IDS :]
    folded = "\r\n ".join(chain)
    return f"In-Reply-To: {own[0]}\r\nReferences: {folded}\r\n".encode()
