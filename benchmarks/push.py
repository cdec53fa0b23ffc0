"""Durable pushes per second beside a C program that does the same syncs: one writer, and 32 that share them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

from benchmarks import filesystem
from benchmarks.figures import OURS, Figure, Limit, compare, interleave
from benchmarks.filler import ENTRY_BYTES, make_maildir
from benchmarks.gate import Gated
from benchmarks.native import compiled
from benchmarks.places import PYTHON, Unavailable
from benchmarks.product import require
from maildefer.maildir.durable import keeps_order

# The limits hold where a push is durable; on tmpfs a sync does nothing, and the ratio is just Python's beside C's.
LIMITS = {1: {"C": Limit(bound=0.9)}, 32: {"C": Limit(bound=0.8)}}
ENTRIES = {"ext4": {1: 1_000, 32: 6_400}, "tmpfs": {1: 5_000, 32: 6_400}}
ONE_SYNC_LIMITS = {1: {"C": Limit(bound=1.2)}, 32: {"C": Limit(bound=0.8)}}
ONE_SYNC = "Pusher with one sync"
WAYS = {
    "Pusher": ("pusher", "maildefer.maildir.push"),
    ONE_SYNC: ("one-sync", "maildefer.maildir.drafts.synced"),
    "Queue.push": ("queue", "maildefer.queue"),
}


def measure(quick: bool) -> list[Figure]:
    """One writer and 32, on ext4 and tmpfs.

    maildefer's ways run in turn with the C program, which makes two syncs: its core, `Pusher`, given bytes as the C
    program is, with two syncs and on ext4 with one (decision 90), and the public `Queue.push`, which takes a message
    and makes the envelope too.
    """
    rounds, share = (3, 4) if quick else (7, 1)
    figures = []
    for name, filesystem_of in filesystem.FILESYSTEMS.items():
        try:
            with filesystem_of() as base:
                for writers, limits in LIMITS.items():
                    entries = ENTRIES[name][writers] // share // writers * writers
                    samples = interleave(contenders(base, entries, writers), rounds, note=print)
                    case = f"{name}, {writers} writer{'s' * (writers > 1)}"
                    for way in [way for way in WAYS if way in samples]:
                        pair = {"C": samples["C"], OURS: samples[way]}
                        held = limits if way != ONE_SYNC else ONE_SYNC_LIMITS[writers]
                        held = held if name == "ext4" else {}
                        figures += compare("push", f"{case}, {way}", pair, "msg/s", held)
        except Unavailable as why:
            print(f"{name} skipped: {why}")
    return figures


def contenders(base: str, entries: int, writers: int) -> dict[str, Callable[[], float]]:
    """Pushes per second of each."""
    tail = [str(entries), str(writers), str(ENTRY_BYTES)]

    def product(name: str) -> float:
        way, module = WAYS[name]
        require(module)
        command = [PYTHON, "-m", "benchmarks.contenders.push_maildefer"]
        return _push(base, entries, lambda path: [*command, path, *tail, way])

    return {
        "C": lambda: _push(base, entries, lambda path: [compiled("push"), path, *tail]),
        **{
            way: partial(product, way) for way in WAYS if way != ONE_SYNC or keeps_order(os.stat(base).st_dev)
        },
    }


def _push(base: str, entries: int, command: Callable[[str], list[str]]) -> float:
    with filesystem.fresh_directory(base) as directory:
        queue = make_maildir(os.path.join(directory, "queue"))
        with Gated(command(queue)) as gated:
            gated.open()
            seconds = int(gated.result()) / 1e9
        if (pushed := len(os.listdir(os.path.join(queue, "new")))) < entries:
            raise RuntimeError(f"only {pushed} of {entries} entries are there")
    return entries / seconds
