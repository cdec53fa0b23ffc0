"""Django's mail goes into the outgoing queue: `EMAIL_BACKEND = "maildefer.django.EmailBackend"`.

Needs Django, which imports this by that name; nothing else of maildefer does. See `docs/django.md`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from maildefer.errors import AddressRefused, MaildeferError
from maildefer.handling.project.queue_paths import must_be_served
from maildefer.maildir.outbox.current import push_together
from maildefer.maildir.push import Compose, Pusher
from maildefer.message import addresses
from maildefer.message.envelope import encode_address
from maildefer.message.request import compose_of
from maildefer.queue import Queue

__all__ = ["EmailBackend"]


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]  # Django has no types
    """Puts messages into a queue, one entry for each recipient of the envelope; durable when `send_messages` returns.

    `queue` and `on_commit` are those of the settings `MAILDEFER_OUTGOING` and `MAILDEFER_ON_COMMIT`, unless given. With
    `on_commit`, True or the alias of a database, what is sent in a transaction of that database is put into the queue
    after its commit, and never after a rollback. `fail_silently` keeps what the queue can't store from raising.
    What a handler sends is in the queue once that has returned, as all that it sends (see `docs/outgoing.md`).
    There is no connection: `open` and `close` do nothing. Any thread may use it.
    Raises `ImproperlyConfigured` without a queue, or where there is no such database.
    """

    def __init__(
        self,
        queue: str | None = None,
        on_commit: bool | str | None = None,
        fail_silently: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.fail_silently = fail_silently
        self.queue = os.fspath(queue or getattr(settings, "MAILDEFER_OUTGOING", None) or "")
        if not self.queue:
            raise ImproperlyConfigured(
                'no queue for outgoing mail: set MAILDEFER_OUTGOING = "run/outgoing", or give queue=…'
            )
        given = getattr(settings, "MAILDEFER_ON_COMMIT", False) if on_commit is None else on_commit
        self.on_commit = DEFAULT_DB_ALIAS if given is True else given or None
        if self.on_commit is not None and self.on_commit not in [*connections]:
            raise ImproperlyConfigured(
                f"MAILDEFER_ON_COMMIT, or on_commit, is {given!r}: give True, False or the alias of a database"
            )

    def send_messages(self, email_messages: Iterable[EmailMessage]) -> int:
        """Put all of them into the queue, or none, and return how many there are with a recipient.

        If the process dies meanwhile, the entries of the first ones may be there. Raises `AddressRefused`, a
        ValueError, and whatever Django raises for a message that can't be written, before anything is stored; and what
        `Queue.push` raises: of a transaction at its commit, which stands.
        """
        number, entries = 0, list[Compose]()
        for message in email_messages:
            if recipients := dict.fromkeys(map(_bare, message.recipients())):
                number += 1
                sender, data = _bare(message.from_email), message.message().as_bytes()
                entries += [compose_of(data, sender, to, host=os.uname().nodename) for to in recipients]
        try:
            must_be_served(self.queue)
            push = partial(self._push, Queue(self.queue)._pusher(), entries)
        except MaildeferError:  # it is not there, or not for this user
            if not self.fail_silently:
                raise
            return 0
        if self.on_commit and not transaction.get_autocommit(using=self.on_commit):
            transaction.on_commit(push, using=self.on_commit)
            return number
        return number if push() else 0

    def _push(self, pusher: Pusher, entries: Sequence[Compose]) -> bool:
        try:
            push_together(pusher, entries)
        except MaildeferError:
            if not self.fail_silently:
                raise
            return False
        return True


def _bare(given: object) -> str:
    """The one address that Django was given, with a domain that the DNS knows, as Django's SMTP backend has it."""
    text = str(given)
    found = addresses.sendable(text)
    if len(found) != 1 or not text.isprintable() or "@" not in found[0]:
        raise AddressRefused(text, "it is not one address")
    encode_address(found[0])
    return found[0]
