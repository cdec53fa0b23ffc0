"""What all processes of a pool have counted, as plain data for its status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from maildefer.handling.outgoing.delivery_count import OUTCOMES as DELIVERY_OUTCOMES
from maildefer.pool.counts.memory import DEFERRED_AT, FIRST_BUCKET, OUTCOMES, SUM, CountsMemory


def counts_record(memory: CountsMemory | None, queues: Sequence[str]) -> dict[str, Any]:
    """Add up all slots; empty for a pool that counts nothing."""
    if memory is None:
        return {}
    attempts: dict[str, list[int]] = {}
    notable: dict[str, dict[str, Any]] = {}
    deliveries: Counter[tuple[str, str]] = Counter()
    words: dict[str, tuple[int, str]] = {}  # by destination, when mail was put off last, and why
    for slot in memory.slots():
        for name, base in slot.handlers.read():
            values = list(memory.words[base : base + SUM + 1])
            attempts[name] = [
                a + b for a, b in zip(attempts.get(name, [0] * len(values)), values, strict=True)
            ]
        for name, base in slot.notable.read():
            found = notable.setdefault(name, {"count": 0, "last": ""})
            found["count"] += memory.words[base]
            found["last"] = slot.text_at(base + 1)
        for name, base in slot.destinations.read():
            for number, outcome in enumerate(DELIVERY_OUTCOMES):
                deliveries[name, outcome] += memory.words[base + number]
            said = memory.words[base + DEFERRED_AT], slot.text_at(base + DEFERRED_AT + 1)
            words[name] = max(words.get(name, (0, "")), said)
    return {
        "attempts": [
            {
                **_named(name, queues, ("handler",)),
                "outcomes": dict(zip(OUTCOMES, values, strict=False)),
                "buckets": values[FIRST_BUCKET:SUM],
                "seconds": values[SUM] / 1e6,
            }
            for name, values in attempts.items()
        ],
        "notable": [
            {**_named(name, queues, ("event", "kind", "handler")), **facts} for name, facts in notable.items()
        ],
        "deliveries": [
            {
                "destination": name,
                "outcomes": {one: deliveries[name, one] for one in DELIVERY_OUTCOMES},
                "deferred_at": at,
                "last_words": said,
            }
            for name, (at, said) in words.items()
        ],
    }


def _named(name: str, queues: Sequence[str], parts: Sequence[str]) -> dict[str, str]:
    """The parts of a place's name; the queue of what shares a place with others is not known."""
    index, *rest = name.split("\n")
    known = index.isdecimal() and int(index) < len(queues)
    values = rest if known else [index] * len(parts)
    return {"queue": queues[int(index)] if known else "", **dict(zip(parts, values, strict=False))}
