"""What is promised of mail that a handler sends through the outgoing queue: each recipient has it, and has it once.

A copy beyond one is allowed for each process that died, or was frozen beyond the TTL, between the next server's 250
and the record of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos_notes import Journal

RECIPIENTS = 3  # of a message, as in `workers.sending`
WHAT = "sending"


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingFacts:
    """What the driver saw of it: the messages that send, and what the next server has taken."""

    keys: Sequence[str] = ()
    copies: Mapping[str, int] = field(default_factory=dict)
    """By recipient, in small letters."""
    requeued: int = 0
    """Dead letters of the outgoing queue at the crash limit, requeued once nobody was killed any more."""
    buried: Sequence[object] = ()
    """Dead letters of it in the end."""
    left: int = 0
    """What else is left in it."""
    suspects: Sequence[object] = ()
    """What an audit of the outgoing queue accuses."""


def judge_sending(
    facts: SendingFacts,
    journals: Sequence[Journal],
    dead_ones: Sequence[Journal],
    dead: Mapping[str, str],
    lost_claims: Sequence[str],
) -> tuple[list[tuple[str, object]], list[tuple[bool, str]]]:
    """Rows for the table, and what has to hold; `dead` are the dead letters' keys, `lost_claims` those of claims."""
    wanted = {one for key in facts.keys if key not in dead for one in recipients_of(key)}
    possible = wanted | {one for key in dead for one in recipients_of(key)}
    missing = sorted(wanted - facts.copies.keys())
    unknown = sorted(facts.copies.keys() - possible)
    beyond = {one: count - 1 for one, count in facts.copies.items() if count > 1}
    died = Counter(one for journal in dead_ones for one in journal.last_sent)
    lost = Counter(lost_claims)
    frozen = Counter(
        {send.recipient: lost[send.key] for journal in journals for send in journal.sends if lost[send.key]}
    )
    unexplained = sorted(one for one, count in beyond.items() if count > died[one] + frozen[one])
    entries: dict[str, set[str]] = {}
    for send in (send for journal in journals for send in journal.sends):
        entries.setdefault(send.recipient, set()).add(send.key)
    doubled = sorted(one for one, keys in entries.items() if len(keys) > 1)
    rows: list[tuple[str, object]] = [
        (f"messages that each send to {RECIPIENTS} recipients", len(facts.keys)),
        ("… recipients who have it", len(facts.copies)),
        ("… who have it not", len(missing)),
        ("… copies beyond one", sum(beyond.values())),
        ("… requeued after the crash limit", facts.requeued),
        ("deliveries in hand of workers that died, or not yet acked", died.total()),
    ]
    checks = [
        (not missing, f"{len(missing)} recipients have not got what was sent, such as {missing[:3]}"),
        (not unknown, f"sent to, though nobody was to: {unknown[:3]}"),
        (not doubled, f"more than one entry for a recipient: {doubled[:3]}"),
        (
            not unexplained,
            f"copies beyond one, though no worker died between the 250 and its record: {unexplained[:3]}",
        ),
        (not facts.buried, f"buried in the outgoing queue: {facts.buried[:3]}"),
        (not facts.left, f"{facts.left} entries are left in the outgoing queue"),
        (not facts.suspects, f"the audit of the outgoing queue accuses: {facts.suspects[:3]}"),
    ]
    return rows, checks


def recipients_of(key: str) -> Iterator[str]:
    """Those to whom the handler of the message of that key sends, in small letters."""
    stem = key.partition(",")[0].lower()
    return (f"{number}.{stem}@next.test" for number in range(RECIPIENTS))
