"""Handing an entry to a queue on another filesystem, where no rename leads: push a copy under a fresh key, then ack.

The copy may double, when the host dies between the two; the first key stands in the copy's `Received` line, and is what
handlers see as `message.key`, so that they can tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from maildefer.maildir.claims import Claim
from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.message import envelope


def ship(claim: Claim, other: Layout, *, host: str) -> None:
    """Copy and ack. Raises what a push and a settle raise; before the ack, the claim is still held."""
    data = claim.read()
    found, offset = envelope.split(data, claim.key)
    first = envelope.handed(data, offset) or claim.key

    def compose(stem: str) -> Sequence[bytes]:
        if found is None or not offset:
            return [data]
        block = envelope.block(
            stem,
            found.sender,
            found.recipient,
            host=host,
            when=SYSTEM.time(),
            via=envelope.HANDOFF,
            client=f"key {first}",
        )
        return [block, data[offset:]]

    Pusher(other, host=host).push(compose)
    claim.ack()
