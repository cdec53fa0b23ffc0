"""The whole way of a message to a handler and back, beside the bare drain: the same claim, read and ack without it.

One process, no pool around it, and processor time: what lowers the figure is what a message costs in Python between
the read and the ack. The floor is the least of that: it parses the envelope, finds the one route, and calls the
handler. All take parts of one queue in turn, so that a machine that is slower for a while is slower for all.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, cycle, product
from string import ascii_lowercase

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare
from benchmarks.filler import RECIPIENT, fill
from benchmarks.places import Unavailable
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED
from maildefer.handling.patterns import regex_text
from maildefer.handling.routes import RoutingBase
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import create_queue
from maildefer.message.envelope import split
from maildefer.message.request import received
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot

BARE, FLOOR = "bare drain", "floor"
LEASE = "host-0a1b2c-1-0badcafe"
LIMITS = {BARE: Limit(bound=0.6), FLOOR: Limit(bound=0.8)}
PART = 50  # entries
PATTERN, CAPTURES = "(name)@osb.(host)", {"name": "[a-z]+", "host": "[a-z.]+"}
RECIPIENTS = {
    "one address": (RECIPIENT,),
    "many addresses": ["".join(letters) + RECIPIENT for letters in product(ascii_lowercase, repeat=3)],
}

Handle = Callable[[Claim, bytes], None]


def measure(quick: bool) -> list[Figure]:
    """Messages a second of processor time, through one route of one and through one of a hundred."""
    entries, rounds = (900, 5) if quick else (6_000, 9)  # as many for each way
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                for routes in (1, 100):
                    ways = {BARE: _pass, FLOOR: _call(), OURS: _handle(routes)}
                    for whom, recipients in RECIPIENTS.items():
                        taken = [_drain(base, entries, ways, recipients) for _ in range(rounds)]
                        samples = {way: [rates[way] for rates in taken] for way in ways}
                        case = f"{name}, {routes} route{'s'[: routes > 1]}, {whom}"
                        figures += compare("handler", case, samples, "msg/s", LIMITS if routes == 1 else {})
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def _pass(claim: Claim, data: bytes) -> None:
    """Nothing between the read and the ack."""


def _call() -> Handle:
    """From the bytes to the call of a no-op function, and nothing besides."""
    find = lru_cache(256)(re.compile(regex_text(PATTERN, CAPTURES)).match)  # as many as ours keeps

    def call(claim: Claim, data: bytes) -> None:
        envelope, end = split(data, claim.key)
        if envelope is None or (found := find(envelope.recipient)) is None:
            raise RuntimeError(f"no route: {envelope}")
        nothing(data[end:], **found.groupdict())

    return call


def nothing(message: object, name: str, host: str) -> None:
    """A handler without marks."""


def _handle(routes: int) -> Handle:
    """From the bytes to a stateless no-op handler's outcome, as a worker does it."""
    router = RoutingBase()
    for number in range(routes):
        pattern = PATTERN if number == 0 else f"list{number}-(name)@lists.(host)"

        def START(message: object, name: str, host: str) -> None:
            pass

        START.__module__ = f"lists.number{number}"
        handler_marks.mark_stateless(START)
        router.register_route(regex_text(pattern, CAPTURES), START)
    dispatcher = Dispatcher(router)
    dispatcher.matches("")  # makes its table

    def handle(claim: Claim, data: bytes) -> None:
        outcome, _ = dispatcher.dispatch(received(data, claim.key, claim.attempt, "run/queue", "run/queue"))
        if outcome is not ACKED:
            raise RuntimeError(f"not handled: {outcome}")

    return handle


def _drain(
    base: str, entries: int, ways: Mapping[str, Handle], recipients: Sequence[str]
) -> dict[str, float]:
    with filesystem.fresh_directory(base) as directory:
        layout = create_queue(os.path.join(directory, "queue"))
        fill(layout.path, PART + entries, recipients)
        filesystem.settle_disk(directory)
        claimer = Claimer(
            layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=LEASE, host="host-0a1b2c", local=True
        )
        names, spent = os.listdir(layout.new), dict.fromkeys(("", *ways), 0.0)
        # The first part opens the journal, for all of them.
        turns = chain([("", _pass)], cycle(ways.items()))
        for (way, handle), first in zip(turns, range(0, PART + entries, PART), strict=False):
            part = names[first : first + PART]
            began = time.process_time()
            for name in part:
                claim = claimer.claim(name)
                if claim is None:
                    raise RuntimeError(f"{name} was not there")
                handle(claim, claim.read())
                claim.ack()
            spent[way] += time.process_time() - began
    return {way: entries / len(ways) / spent[way] for way in ways}
