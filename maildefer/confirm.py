"""Confirmations: a message waits until its sender has answered with a secret that was mailed to the sender's address.

Workers, on one host or several, need a storage that they share: `ConfirmationStorage("run/confirmations")`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from maildefer import view
from maildefer.handling.state.mapping import DirectoryMapping
from maildefer.mail import MailRequest
from maildefer.message import addresses
from maildefer.queue import Queue
from maildefer.routing import Reject

__all__ = ["ConfirmationEngine", "ConfirmationStorage"]

_SECRET_BYTES = 16


class ConfirmationStorage:
    """The secrets and the addresses to which they were sent, in `db`: a mapping, or the path of a directory.

    A directory on the mount is shared by all hosts. Without `db` it is a dictionary, for one process. A
    `shelve.open(…)` is a mapping, too, for one process: its keys are texts, and each change is written to its file.
    """

    def __init__(self, db: MutableMapping[Any, tuple[str, str]] | str | None = None) -> None:
        self.confirmations: MutableMapping[Any, tuple[str, str]]
        if isinstance(db, str):
            self.confirmations = DirectoryMapping(db)
        else:
            self.confirmations = {} if db is None else db

    def key(self, target: str, from_address: str) -> bytes:
        """`target:address`, in ASCII, which every database takes."""
        return f"{target}:{from_address}".encode("ascii", "backslashreplace")

    def store(self, target: str, from_address: str, secret: str, pending_id: str) -> None:
        """Keep the secret and the key of the pending message."""
        self.confirmations[self._key(target, from_address)] = (secret, pending_id)
        self._written()

    def get(self, target: str, from_address: str) -> tuple[str, str] | tuple[None, None]:
        """The secret and the pending message's key; (None, None) where nothing is pending."""
        return self.confirmations.get(self._key(target, from_address), (None, None))

    def delete(self, target: str, from_address: str) -> None:
        """Delete the secret, if there is one."""
        self.confirmations.pop(self._key(target, from_address), None)
        self._written()

    def clear(self) -> None:
        """Delete all secrets."""
        self.confirmations.clear()
        self._written()

    def _key(self, target: str, from_address: str) -> bytes | str:
        key = self.key(target, from_address)
        # Without importing it, 1 MB.
        is_shelf = isinstance(getattr(self.confirmations, "keyencoding", None), str)
        return key.decode("ascii") if is_shelf else key

    def _written(self) -> None:
        """Write a shelf to its file: a process that is killed never closes it."""
        sync = getattr(self.confirmations, "sync", None)
        if sync is not None:
            sync()


class ConfirmationEngine:
    """Keeps the messages in the queue `pending_queue`, a path, and their secrets in `storage`."""

    def __init__(self, pending_queue: str, storage: ConfirmationStorage) -> None:
        self.pending = Queue(pending_queue)
        self.storage = storage

    def send(
        self, relay: Any, target: str, message: MailRequest, template: str, vars: Mapping[str, Any]
    ) -> None:
        """Keep the message, and mail the rendered template to its sender, from the address to be answered.

        The address is `target-confirm-SECRET@host`, with the host from `vars`; the template gets `vars`, and
        `confirm_address`, the part before the `@`. Raises `Reject` for an automatic message: nobody would confirm it.
        """
        if sign := message.automatic_sign:
            raise Reject(f"no confirmation is asked for an automatic message ({sign})")
        variables = {**vars, "target": target, "message": message}
        variables["confirm_address"] = self.register(target, message)
        address = f"{variables['confirm_address']}@{vars['host']}"
        question = view.respond(variables, template)
        question["To"] = message.From
        question["From"] = question["Reply-To"] = address
        question["Subject"] = "Confirmation required"
        question["Auto-Submitted"] = "auto-replied"  # no program may answer it (RFC 3834)
        question.answers = message
        relay.deliver(question)

    def register(self, target: str, message: MailRequest) -> str:
        """Keep the message under a new secret; returns `target-confirm-SECRET`."""
        secret = self.make_random_secret()
        self.storage.store(target, _bare(message.From), secret, self.push_pending(message))
        return f"{target}-confirm-{secret}"

    def verify(self, target: str, from_address: str, secret: str) -> MailRequest | None:
        """The pending message, if the secret is right. The secret is deleted, and the message stays pending."""
        key = self._confirmed(target, from_address, secret)
        if key is None:
            return None
        self.storage.delete(target, _bare(from_address))
        return self.get_pending(key)

    def cancel(self, target: str, from_address: str, secret: str) -> None:
        """Delete the secret and the message, if the secret is right."""
        key = self._confirmed(target, from_address, secret)
        if key is not None:
            self.delete_pending(key)
            self.storage.delete(target, _bare(from_address))

    def push_pending(self, message: MailRequest) -> str:
        """Push the message to the queue of pending messages; returns its key."""
        return self.pending.push(message)

    def get_pending(self, pending_id: str) -> MailRequest:
        """The pending message of that key. Raises EntryNotFound (a KeyError)."""
        return self.pending.get(pending_id)

    def delete_pending(self, pending_id: str) -> None:
        """Delete the pending message of that key. Raises EntryNotFound (a KeyError)."""
        self.pending.remove(pending_id)

    def make_random_secret(self) -> str:
        """A new secret, in hexadecimal digits."""
        return os.urandom(_SECRET_BYTES).hex()

    def clear(self) -> None:
        """Delete all secrets and pending messages."""
        self.pending.clear()
        self.storage.clear()

    def _confirmed(self, target: str, from_address: str, given: str) -> str | None:
        """The pending message's key, if the secret is right."""
        from hmac import compare_digest  # OpenSSL, 4 MB: only for processes that compare secrets

        secret, key = self.storage.get(target, _bare(from_address))
        if secret is None or not compare_digest(
            secret.encode(), str(given).lower().encode("utf-8", "replace")
        ):
            return None
        return key


def _bare(from_address: str) -> str:
    return addresses.first(from_address)
