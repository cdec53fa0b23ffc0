"""The queue's own code at work on a recorded disk: pushes of several threads, for now and for later, alone and in
batches, whose files are synced at the same time; claims, and all that ends them.

Another thread pushes two unique keys again and again.  One more has the kernel write the journal's pages, in any order,
as it would within half a minute; and where folders are to be replaced, another replaces those that are empty.

Each fact that is told to the world becomes a mark in the log: `pushed/KEY/DIGEST` once a push has returned,
`unique/KEY/DIGEST` where that made an entry of a unique key, `acking/KEY` just before the entry may go.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from random import Random
from typing import Final
from unittest.mock import patch

from maildefer.digest import blake2b
from maildefer.host.linux import parallel_fsync
from maildefer.maildir import journal, scan
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.markers.names import IN_KEY
from maildefer.maildir.names import lease_name
from maildefer.maildir.push import Compose, Planned, Pusher
from maildefer.maildir.system import SYSTEM
from maildefer.maildir.upkeep import grown
from maildefer.maildir.upkeep.leases import Lease
from tests.support.queues import LABEL, FakeSlots, holder

THREADS: Final = 3
_BATCH: Final = 5  # of the last thread's pushes
_SETTLES: Final = ("ack", "defer", "bury", "release", "hold")
_ENDS_OF_UNIQUE: Final = ("ack", "ack", "bury", "release")
_SIZES: Final = (80, 900, 5_000, 30_000)  # within a block, and over some

UNIQUE: Final = ("order-1", "order-2")

Mark = Callable[[str], None]


def forgetful(layout: Layout, what: str, pause: Callable[[], None]) -> Pusher:
    """One with a planted bug: it syncs no files, or no directories; or one that syncs all, each after a pause."""

    def fsync(descriptor: int) -> None:
        pause()
        if what != ("directories" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "files"):
            os.fsync(descriptor)

    def sync_all(descriptors: Sequence[int]) -> list[OSError | None]:
        pause()
        return [None] * len(descriptors) if what == "files" else parallel_fsync.fsync_all(descriptors)

    def commit(descriptor: int) -> bool:
        return what == "directories" or SYSTEM.commit(descriptor)

    return Pusher(layout, host=LABEL, system=replace(SYSTEM, fsync=fsync, commit=commit), sync_all=sync_all)


def digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()


def work(
    path: str,
    pushes: int,
    seed: int,
    mark: Mark,
    forget: str,
    *,
    one_sync: bool = False,
    replaces: bool = False,
) -> int:
    """Make the queue, push, claim and settle, all at the same time; returns how many emptied folders were replaced.

    With one sync for a push, also larger entries; where folders are replaced, all that waits is claimed.
    """
    sizes = (*_SIZES, 300_000) if one_sync else _SIZES
    layout = create_queue(path)
    journal.begin_journal(layout)  # on btrfs
    if one_sync:
        os.mkdir(layout.synced)
    mark("begin")
    pausing = Random(seed)
    # So that others' commits come between an entry's making and its sync.
    pusher = forgetful(layout, forget, lambda: time.sleep(pausing.random() * 0.01 if one_sync else 0))
    done = threading.Event()
    later = pusher.due(after=3600)

    def push(thread: int) -> None:
        random = Random(f"{seed} {thread}")
        size = _BATCH if thread == THREADS - 1 else 1
        for first in range(0, pushes // THREADS, size):
            bodies = [
                f"Subject: {thread}.{number}\n\n".encode() + random.randbytes(random.choice(sizes))
                for number in range(first, first + size)
            ]
            dues = [later if random.random() < 0.3 else None for _ in bodies]
            planned = [
                Planned(compose=_composed(body), due=due) for body, due in zip(bodies, dues, strict=True)
            ]
            if replaces:
                done.wait(random.random() * 0.05)  # so that all that waits is taken meanwhile
            keys = pusher.push_all(planned)
            for key, body in zip(keys, bodies, strict=True):
                assert isinstance(key, str), key
                mark(f"pushed/{key}/{digest(body)}")

    def push_uniquely() -> None:
        system = SYSTEM
        if forget == "markers":
            system = replace(SYSTEM, fsync=lambda descriptor: None, commit=lambda descriptor: True)
        random, markers = Random(f"{seed} unique"), Markers(layout, host=LABEL, system=system)
        for number in range(pushes // THREADS):
            body = f"Subject: unique {number}\n\n".encode() + random.randbytes(random.choice(_SIZES))
            marked = markers.push(random.choice(UNIQUE), _composed(body))
            if marked.is_new:
                mark(f"unique/{marked.key}/{digest(body)}")
            else:
                done.wait(0.01)

    lease = Lease.join(layout, lease_name(LABEL, SYSTEM), holder())
    claimer = Claimer(layout, FakeSlots(), lease=lease.name, host=LABEL)
    with ThreadPoolExecutor(THREADS + 4) as threads:
        consumer = threads.submit(_consume, claimer, done, mark, Random(seed), spares=not replaces)
        writing = threads.submit(_write_journal, layout, done, Random(f"{seed} journal"))
        replacing = threads.submit(_replace_folders, layout, done) if replaces else None
        try:
            uniquely = threads.submit(push_uniquely)
            list(threads.map(push, range(THREADS)))
            uniquely.result()
        finally:
            done.set()
        consumer.result()
        writing.result()
        return replacing.result() if replacing else 0


def _composed(body: bytes) -> Compose:
    return lambda stem: [body]


def _write_journal(layout: Layout, done: threading.Event, random: Random) -> None:
    while not done.wait(random.random() * 0.03):
        for name in os.listdir(layout.journal):
            if random.random() < 0.5:
                descriptor = os.open(f"{layout.journal}/{name}", os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def _replace_folders(layout: Layout, done: threading.Event) -> int:
    count = 0
    with patch.object(grown, "GROWN_BYTES", 0):
        while not done.wait(0.001):
            count += len(grown.replace_grown(layout))
    return count


def _consume(claimer: Claimer, done: threading.Event, mark: Mark, random: Random, *, spares: bool) -> None:
    """Half of what waits stays if it `spares`, so that there is something to lose; unique keys become free again."""
    spared: set[str] = set()
    while not done.wait(0.01):
        for name in [name for name in scan.entries(claimer.layout.new) if name not in spared]:
            is_unique = IN_KEY in name
            if spares and not is_unique and random.random() < 0.5:
                spared.add(name)
                continue
            claim = claimer.claim(name)
            assert claim is not None, "nobody else claims"
            match random.choice(_ENDS_OF_UNIQUE if is_unique else _SETTLES):
                case "ack":
                    mark(f"acking/{claim.key}")
                    claim.ack()
                case "defer":
                    claim.defer(60)
                case "bury":
                    claim.bury("on purpose")
                case "release":
                    claim.release()
