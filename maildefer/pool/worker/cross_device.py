"""The handoff of an entry to a queue on another filesystem, where rename(2) fails: push a copy, then ack.

The copy has a key of its own. There are two when the host dies between push and ack; the first key stands in the copy's
`Received` line, and is what handlers see as `message.key`, so that they can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maildefer.maildir.claims import Claim
from maildefer.maildir.layout import Layout
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.scan import priority_of
from maildefer.maildir.system import SYSTEM
from maildefer.message import envelope

if TYPE_CHECKING:
    from maildefer.maildir.outbox.outputs import Outputs


def hand_off_copy(claim: Claim, other: Layout, *, host: str, outputs: Outputs | None = None) -> None:
    """Push a copy and ack the claim. Raises what a push and a settle raise; until the ack, the claim is held.

    With outputs, which are durable, it is committed, and whoever claims it next publishes them and acks it.
    """
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
            dsn=found.dsn,
        )
        return [block, data[offset:]]

    Pusher(other, host=host).push(Planned(compose=compose, priority=priority_of(claim.key)))
    if outputs is None or not outputs:
        claim.ack()
        return
    outputs.commit(claim)
    claim.release()
