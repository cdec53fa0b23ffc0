"""A dead letter that a mail reader has moved into its queue under a name of the reader's own.

The block on top says which entry it was, and is believed where the queue has a reason for that entry's burial: nobody
else knows its key. Then the handlers get the message as at its first attempts, and not with the block as its first
lines, and it holds its unique key, under a name that says so. What a mail reader has moved under the entry's own name
needs none of this.
"""

from __future__ import annotations

from contextlib import suppress

from maildefer.digest import blake2b
from maildefer.errors import UniqueKeyHeld
from maildefer.handling.outcomes import Buried
from maildefer.host.identity import this_host
from maildefer.maildir import names, reasons
from maildefer.maildir.claims import Claim
from maildefer.maildir.journal import journal_of
from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import EntryName
from maildefer.maildir.scan import PRIORITIES, priority_of
from maildefer.maildir.system import SYSTEM
from maildefer.message.envelope import stem_of
from maildefer.message.request import MailRequest, received


def read(claim: Claim, layout: Layout, data: bytes, message: MailRequest) -> MailRequest | Buried | None:
    """The message of a claim whose bytes begin with no block of its own; None if it was put back under another name.

    Raises ClaimLost, StorageFault's kinds.
    """
    first = _first_key(layout, data)
    if first is None:
        return message
    if claim.attempt == 1 and (journal := journal_of(layout)) is not None:
        journal.record_note(claim.key, {"requeue_of": first})
        journal.record_note(first, {"requeue": f"as {claim.key}"})
        journal.record_end("delete", first)  # the reader has, or will have, deleted it
    if IN_KEY in first and IN_KEY not in claim.key:
        return _hold(claim, layout, first, len(data))
    moved = received(data, first, claim.attempt, message.queue, message.Peer)
    moved.key = claim.key
    return moved


def _first_key(layout: Layout, data: bytes) -> str | None:
    """The key of the dead letter that these bytes are, or are a copy of; its reason is kept for another week."""
    if (stem := stem_of(data)) is None:
        return None
    with suppress(OSError):
        for name in reasons.names_of_reasons(layout):
            first = EntryName.parse(name.removesuffix(".json")).key
            if name.startswith(f"{stem},") and names.pushed_by_us_at(first) is not None:
                SYSTEM.utime(f"{layout.reasons}/{name}")
                return first
    return None


def _hold(claim: Claim, layout: Layout, first: str, size_bytes: int) -> Buried | None:
    """Put the entry back under a key that holds the unique key; bury it if another entry has that."""
    pushed, own = (
        int(names.pushed_at(first) or 0),
        blake2b(claim.key.encode("utf-8", "surrogateescape"), digest_size=8),
    )
    unique = first.partition(IN_KEY)[2].partition(",")[0]
    stem = f"{pushed}.moved-{own.hexdigest()}{PRIORITIES[priority_of(first)]}{IN_KEY}{unique}"
    key = names.sized(stem, size_bytes)  # the same at each attempt, as its marker may be there
    try:
        Markers(layout, host=this_host().label).retake(f"{key},n={claim.entry.returns + 1}")
    except UniqueKeyHeld as fault:
        return Buried(str(fault), begun=False)
    claim.release(key=key)
    return None
