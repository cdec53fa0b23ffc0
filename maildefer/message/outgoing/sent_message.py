"""One message that a handler sends: its name, the same at each attempt, and the recipients that have taken it.

A handler runs again if only some of the recipients took its message, and would send it to all of them again. So those
that have taken it are recorded in the queue, on stable storage, before the handler gets the error. Each host finds
the record, since it lists the folder after a change of its own (see `maildefer.handling.state.directory`). Only a
message that was partly refused has a record, and only a message with several recipients is looked up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary

from maildefer import log_context
from maildefer.digest import blake2b
from maildefer.maildir import durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM
from maildefer.message.outgoing.refusals import ServerReply, is_final
from maildefer.untrusted import UntrustedRecord, read_record

_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,119}")
_SUBJECT: Final = re.compile(rb"^subject:[^\n]*(?:\n[ \t][^\n]*)*", re.IGNORECASE | re.MULTILINE)
_LIMIT_BYTES: Final = 16 << 20  # of a record: the recipients of a mailing list

# By handled message: how often its handlers have sent each kind of message at this attempt.
_counts: Final[WeakKeyDictionary[Any, dict[str, int]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """A message that a handler sends; `name` is the same at each attempt.

    It is made from the key, the bytes that came, the handler, sender, recipients and subject. The key alone is not
    enough: another user who pushes entries may have chosen the key of another entry.
    `older_name` is its name in versions that left out the bytes; their records still count.
    """

    name: str
    folder: str
    attempt: int
    older_name: str | None = None

    def recorded(self) -> tuple[set[str], dict[str, ServerReply]]:
        """The recipients that have taken the message, and those that have refused it permanently. Raises OSError.

        A requeued dead letter counts its attempts anew: then refused recipients are tried once more.
        """
        found: dict[str, Any] = {}
        for name in self._names():
            try:
                found = read_record(f"{self.folder}/{name}", limit_bytes=_LIMIT_BYTES)
            except (FileNotFoundError, UntrustedRecord):  # replaced since the listing, or damaged
                continue
        refused = found.get("refused", {}) if found.get("attempt", 0) < self.attempt else {}
        return set(found.get("taken", ())), {
            address: (code, text.encode()) for address, (code, text) in refused.items()
        }

    def record(self, taken: set[str], refused: dict[str, ServerReply]) -> None:
        """Record the replies durably. Raises OSError."""
        final = {
            address: (code, text.decode("utf-8", "replace"))
            for address, (code, text) in refused.items()
            if is_final(code)
        }
        record = {"taken": sorted(taken), "refused": final, "attempt": self.attempt}
        queue = os.path.dirname(os.path.dirname(self.folder))
        make_in(queue, ".maildefer/sent", SYSTEM)
        old, token, system = self._names(), SYSTEM.token(8), confined_to(queue)
        path = f"{self.folder}/{self.name},{self.attempt:06d}.{token}"
        durable.replace_file(path, json.dumps(record).encode(), f"{self.folder}/.{token}", system=system)
        for name in old:
            durable.discard(f"{self.folder}/{name}", system)

    def _names(self) -> list[str]:
        """The records, the newest last: two only after a crash between a write and the removal of the one before."""
        for above in (
            self.folder,
            os.path.dirname(self.folder),
        ):  # so that an NFS client looks again for a folder
            try:
                SYSTEM.utime(above)
                known = (self.name, self.older_name)
                return sorted(
                    (name for name in SYSTEM.listdir(self.folder) if name.rpartition(",")[0] in known),
                    key=lambda name: name.rpartition(",")[2],
                )
            except FileNotFoundError:
                continue
        return []  # nothing was ever partly refused in this queue


def sent_message_of(sender: str, recipients: Sequence[str], data: bytes, home: str) -> SentMessage | None:
    """The message that is being sent; None outside of a handler of a queue's message, and in a batch of several.

    `home`: the folder at which a relative path of the queue begins.
    """
    about = log_context.current()
    if about is None:
        return None
    message, handler = about
    if isinstance(message, list):
        if len(message) != 1:
            return None
        message = message[0]
    key, queue = getattr(message, "key", None), getattr(message, "queue", None)
    if not key or not queue:
        return None
    head = data[: data.find(b"\r\n\r\n") + 2]
    subject = _SUBJECT.search(head)
    facts = [handler, sender, sorted(recipients), subject[0].decode("latin-1") if subject else ""]
    came = getattr(message, "Data", b"")
    came = came if isinstance(came, bytes) else str(came).encode("utf-8", "surrogateescape")
    kind, older_name = _digest(*facts, blake2b(came, digest_size=32).hexdigest()), _digest(*facts)
    counts = _counts.setdefault(message, {})
    counts[kind] = number = counts.get(kind, 0) + 1
    return SentMessage(
        name=f"{_stem(key)}.{kind}.{number}",
        older_name=f"{_stem(key)}.{older_name}.{number}",
        folder=Layout(os.path.join(home, queue)).sent,
        attempt=getattr(message, "attempt", None) or 1,
    )


def _digest(*facts: object) -> str:
    return blake2b(json.dumps(facts).encode(), digest_size=9).hexdigest()


def _stem(key: str) -> str:
    stem = key.partition(",")[0]
    return (
        stem
        if _SAFE.fullmatch(stem)
        else blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    )
