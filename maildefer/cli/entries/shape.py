"""Counting entries by domain and age, as qshape(1) of Postfix shows where a queue is congested."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from maildefer.cli.entries.listing import arrived_at, envelope_of
from maildefer.maildir.operator.entries import FoundEntry

EDGES_MINUTES: Final = (5, 10, 20, 40, 80, 160, 320, 640, 1280)


def shape_of(found: Iterable[FoundEntry], *, senders: bool = False) -> dict[str, list[int]]:
    """How many entries each domain has in each class of age; the last is older than all edges.

    Bounces, which have no sender, count as `MAILER-DAEMON`; entries without an envelope as `?`.
    """
    now = time.time()
    shaped: dict[str, list[int]] = defaultdict(lambda: [0] * (len(EDGES_MINUTES) + 1))
    for one in found:
        arrived = arrived_at(one.entry.key)
        age = 0.0 if arrived is None else (now - arrived) / 60
        shaped[_domain(one, senders=senders)][bisect_left(EDGES_MINUTES, age)] += 1
    return dict(shaped)


def _domain(found: FoundEntry, *, senders: bool) -> str:
    envelope = envelope_of(found.path)
    if envelope is None:
        return "?"
    address = envelope.sender if senders else envelope.recipient
    return address.rpartition("@")[2].lower() or "MAILER-DAEMON"
