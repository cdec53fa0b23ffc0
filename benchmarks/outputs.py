"""A message whose handler sends one: what it costs that this is seen when the handler has returned, or not at all.

One process, no pool around it, and real time: most of it is waiting for syncs, of which there are two more.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

from benchmarks import filesystem
from benchmarks.figures import Figure, interleave
from benchmarks.filler import fill
from benchmarks.places import Unavailable
from maildefer.handling import handler_marks
from maildefer.handling.dispatch import Dispatcher
from maildefer.handling.retry import RetryPolicy
from maildefer.handling.routes import RoutingBase
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import create_queue
from maildefer.maildir.outbox.publish import Outboxes
from maildefer.pool.attempt_log import AttemptLog
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker.attempt import QueueAttempts
from maildefer.pool.worker.settle import Settler
from maildefer.queue import Queue

AT_ONCE, TOGETHER = "pushed at once", "seen on return"
LEASE = "host-0a1b2c-1-0badcafe"
BODY = b"Subject: an answer\n\n" + b"It comes, and it comes once. " * 60


class _NoLines(AttemptLog):
    def add(self, *line: Any, **more: Any) -> None:
        pass


def measure(quick: bool) -> list[Figure]:
    """Milliseconds a message, and by how many times more it is."""
    entries, rounds = (100, 3) if quick else (400, 7)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                contenders = {
                    AT_ONCE: partial(milliseconds, base, entries, keeps_outputs=False),
                    TOGETHER: partial(milliseconds, base, entries, keeps_outputs=True),
                }
                samples = interleave(contenders, rounds, note=print)
        except Unavailable as why:
            print(f"{name} skipped: {why}")
            continue
        figures += [
            Figure(benchmark="outputs", case=name, name=how, unit="ms/msg", samples=taken)
            for how, taken in samples.items()
        ]
        ratios = [after / before for after, before in zip(samples[TOGETHER], samples[AT_ONCE], strict=True)]
        beside = f"{TOGETHER}, beside {AT_ONCE}"
        figures.append(Figure(benchmark="outputs", case=name, name=beside, unit="times", samples=ratios))
    return figures


def milliseconds(base: str, entries: int, *, keeps_outputs: bool) -> float:
    with filesystem.fresh_directory(base) as directory:
        layouts = [create_queue(os.path.join(directory, name)) for name in ("queue", "outgoing")]
        fill(layouts[0].path, entries)
        filesystem.settle_disk(directory)
        claimer = Claimer(
            layouts[0], ScoreboardSlot(Scoreboard(1, 1), 0), lease=LEASE, host="host-0a1b2c", local=True
        )
        attempts = _attempts(Queue(layouts[1].path), Outboxes(lambda: layouts), keeps_outputs)
        names = os.listdir(layouts[0].new)
        began = time.perf_counter()
        for name in names:
            if (claim := claimer.claim(name)) is None or not attempts.make(claim, attempts.read):
                raise RuntimeError(f"{name} was not handled")
        taken = time.perf_counter() - began
        if len(os.listdir(layouts[1].new)) != entries:
            raise RuntimeError("not all was sent")
        return taken / entries * 1000


def _attempts(outgoing: Queue, outboxes: Outboxes, keeps_outputs: bool) -> QueueAttempts:
    def SENDS(message: object) -> None:
        outgoing.push(BODY, sender="", recipient="ann@example.org")

    handler_marks.mark_stateless(SENDS)
    router = RoutingBase()
    router.register_route("(?s:.*)", SENDS)
    return QueueAttempts(
        queue="run/queue",
        dispatcher=Dispatcher(router),
        settler=Settler(policy=RetryPolicy(), layouts={}, host="host-0a1b2c"),
        log=_NoLines(),
        return_claim=lambda claim, fault: None,
        note_settled=lambda claim, outcome, word: None,
        keeps_outputs=keeps_outputs,
        outboxes=lambda: outboxes,
    )
