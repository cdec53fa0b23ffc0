"""What a conversation's token costs a message: taking it and giving it back, and making its folder at the first use."""

from __future__ import annotations

import os
import time

from benchmarks import filesystem
from benchmarks.figures import Figure
from benchmarks.places import Unavailable
from maildefer.maildir.layout import create_queue
from maildefer.maildir.upkeep.tokens import Tokens
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot

CONVERSATIONS = 10_000
LEASE = "host-0a1b2c-1-0badcafe"


def measure(quick: bool) -> list[Figure]:
    """Microseconds a message, of many conversations in turn, on ext4 and tmpfs."""
    rounds, share = (1, 20) if quick else (5, 1)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base, filesystem.fresh_directory(base) as directory:
                figures += _figures(name, directory, rounds, CONVERSATIONS // share)
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def _figures(name: str, directory: str, rounds: int, count: int) -> list[Figure]:
    layout = create_queue(os.path.join(directory, "queue"))
    tokens = Tokens(layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=lambda: LEASE)
    first, *later = [_microseconds(tokens, count) for _ in range(1 + rounds)]
    case = f"{name}, {count:,} conversations in turn"
    return [
        Figure(benchmark="tokens", case=case, name="at the first use", unit="µs", samples=[first]),
        Figure(benchmark="tokens", case=case, name="from then on", unit="µs", samples=later),
    ]


def _microseconds(tokens: Tokens, count: int) -> float:
    began = time.perf_counter_ns()
    for number in range(count):
        conversation = f"['workers.list', 'user{number}@example.org']"
        if not tokens.take_token(conversation):
            raise RuntimeError(f"the token of {conversation} is not free")
        tokens.release_token(conversation)
    return (time.perf_counter_ns() - began) / 1000 / count
