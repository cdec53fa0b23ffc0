"""The whole way of a message to a handler and back, beside the bare drain: the same claim, read and ack without it.

One process, no pool around it, and processor time: what lowers the figure is what a message costs in Python between
the read and the ack.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import fill
from benchmarks.places import Unavailable
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.outcomes import ACKED
from maildefer.handling.patterns import regex_text
from maildefer.handling.routes import RoutingBase
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import create_queue
from maildefer.message.request import received
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot

BARE = "bare drain"
LEASE = "host-0a1b2c-1-0badcafe"
LIMIT = Limit(bound=0.7)


def measure(quick: bool) -> list[Figure]:
    """Messages a second of processor time, through one route of one and through one of a hundred."""
    entries, rounds = (500, 5) if quick else (3_000, 9)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                for routes in (1, 100):
                    handle = _handle(routes)
                    contenders = {
                        BARE: partial(_drain, base, entries, lambda claim, data: None),
                        OURS: partial(_drain, base, entries, handle),
                    }
                    samples = interleave(contenders, rounds, note=print)
                    case = f"{name}, {routes} route{'s'[: routes > 1]}"
                    figures += compare(
                        "handler", case, samples, "msg/s", {BARE: LIMIT} if routes == 1 else {}
                    )
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def _handle(routes: int) -> Callable[[Claim, bytes], None]:
    """From the bytes to a stateless no-op handler's outcome, as a worker does it."""
    router = RoutingBase()
    for number in range(routes):
        captures = {"name": "[a-z]+", "host": "[a-z.]+"}
        pattern = "(name)@osb.(host)" if number == 0 else f"list{number}-(name)@lists.(host)"

        def START(message: object, name: str, host: str) -> None:
            pass

        START.__module__ = f"lists.number{number}"
        handler_marks.mark_stateless(START)
        router.register_route(regex_text(pattern, captures), START)
    dispatcher = Dispatcher(router)
    dispatcher.matches("")  # makes its table

    def handle(claim: Claim, data: bytes) -> None:
        outcome, _ = dispatcher.dispatch(received(data, claim.key, claim.attempt, "run/queue", "run/queue"))
        if outcome is not ACKED:
            raise RuntimeError(f"not handled: {outcome}")

    return handle


def _drain(base: str, entries: int, handle: Callable[[Claim, bytes], None]) -> float:
    with filesystem.fresh_directory(base) as directory:
        layout = create_queue(os.path.join(directory, "queue"))
        fill(layout.path, entries)
        filesystem.settle_disk(directory)
        claimer = Claimer(
            layout, ScoreboardSlot(Scoreboard(1, 1), 0), lease=LEASE, host="host-0a1b2c", local=True
        )
        names = os.listdir(layout.new)
        began = time.process_time()
        for name in names:
            claim = claimer.claim(name)
            if claim is None:
                raise RuntimeError(f"{name} was not there")
            handle(claim, claim.read())
            claim.ack()
        return entries / (time.process_time() - began)
