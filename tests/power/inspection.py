"""Mounting a disk as the power cut left it, and looking whether the queue still holds what it must."""

from __future__ import annotations

import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from maildefer import Queue
from maildefer.control.audit import audit
from maildefer.maildir import journal, scan
from maildefer.maildir.drafts.synced import recover
from maildefer.maildir.layout import Layout, open_queue
from maildefer.maildir.markers.names import hash_of
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import read_reason
from maildefer.maildir.system import SYSTEM
from tests.power.workload import UNIQUE, digest

_UNENDED = ("new", "cur", "later_new")
_NEVER_PUSHED = bytes(64)  # zeros, as in blocks that the disk never got; what is pushed is random


@contextmanager
def mounted(device: str, point: str, kind: str, *more: str) -> Iterator[None]:
    """Mounted, which replays the filesystem's journal."""
    subprocess.run(["mount", "-t", kind, *more, device, point], check=True)
    try:
        yield
    finally:
        for kept in filter(None, journal._journals.values()):  # by which this process has files open
            kept.close()
        subprocess.run(["umount", point], check=True)


def complaints(
    path: str, marks: Iterable[str], report: Callable[[str, bool], None], audited: Counter[str]
) -> Iterator[str]:
    """What is wrong with the queue at `path` after these marks; nothing, if all is well.

    `report` is told what the cut has left where one sync was to do for a push; `audited` adds up what audits say.
    """
    pushed: dict[str, str] = {}
    acking: set[str] = set()
    for mark in marks:
        match mark.split("/"):
            case ["pushed" | "unique", key, sum_of_it]:
                pushed[key] = sum_of_it
            case ["acking", key]:
                acking.add(key)
    layout = open_queue(path)
    recover(layout, report)
    if left := os.listdir(layout.synced) if os.path.isdir(layout.synced) else []:
        yield f"left where one sync was to do: {left}"
    found = _entries(layout)
    for key, sum_of_it in pushed.items():
        if len(found[key]) > 1:
            yield f"{key} is in {len(found[key])} places: {found[key]}"
        if not found[key] and key not in acking:
            yield f"{key} is lost"
        for place in found[key]:
            if digest(_read(place)) != sum_of_it:
                yield f"{place} is damaged"
    for key in found.keys() - pushed.keys():  # its push had not returned
        for place in found[key]:
            if len(data := _read(place)) != int(key.rpartition(",S=")[2]) or _NEVER_PUSHED in data:
                yield f"{place} is not whole"
    for name in scan.entries(layout.dead_new):
        if read_reason(layout, EntryName.parse(name)).get("reason") != "on purpose":
            yield f"the dead letter {name} is without its reason"
    for unique in UNIQUE:
        told = Queue(path).push(b"Subject: again\n\n", unique=unique)
        held = [key for folder in _UNENDED for key in _keys(layout, folder) if f"q={hash_of(unique)}" in key]
        # None: its marker is there, and is free again after the TTL.
        if held not in ([], [told]):
            yield f"of the unique key {unique} there are {held}, and a push is told {told}"
    key = Queue(path).push(b"Subject: life goes on\n\n")
    if Queue(path).get(key).Data != b"Subject: life goes on\n\n":
        yield "a new message does not come back"
    yield from _misjudged(layout, pushed, acking, audited)


def _misjudged(
    layout: Layout, pushed: Iterable[str], acking: set[str], audited: Counter[str]
) -> Iterator[str]:
    """What the audit says that is not so, of what this host did before it stopped, and does not say that is."""
    report = audit([layout.path], timeout_seconds=0, system=replace(SYSTEM, sleep=lambda seconds: None))
    found, suspects = _entries(layout), {suspect.key: suspect for suspect in report.suspects}
    for suspect in report.suspects:
        if suspect.verdict == "lost" or suspect.key in found:
            yield f"the audit calls {suspect.key} {suspect.verdict}: {suspect.why}"
    for key in pushed:
        if not found[key] and key not in acking and key not in suspects and _is_recorded(layout, key):
            yield f"the audit does not name {key}, which is lost"
    if report.unrecorded or report.unreadable:
        yield f"the audit calls {report.unrecorded_keys} unrecorded, and {report.unreadable} unreadable"
    audited.update(
        accepted=report.accepted, unproven=len(suspects), unsynced=report.unsynced, torn_records=report.torn
    )


def _is_recorded(layout: Layout, key: str) -> bool:
    files = [
        _read(f"{layout.journal}/{name}") for name in os.listdir(layout.journal) if name.endswith(".pushed")
    ]
    return any(f" push {key} .".encode() in data for data in files)


def _keys(layout: Layout, folder: str) -> list[str]:
    return [EntryName.parse(name).key for name in scan.entries(getattr(layout, folder))]


def _entries(layout: Layout) -> dict[str, list[str]]:
    """Every place of every key."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in (layout.new, layout.cur, layout.later_new, layout.dead_new):
        for name in scan.entries(folder):
            found[EntryName.parse(name).key].append(f"{folder}/{name}")
    return found


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
