"""Entries that one sync makes durable, where the filesystem keeps the order of changes (decision 90).

    .maildefer/synced/KEY.CRC.BOOT      the checksum of its bytes; the boot of the host that writes it

A queue has this folder if `maildefer doctor --one-sync` has made it. There an entry is written and synced, which makes
its name durable too, and is then moved to where it waits, which nobody syncs: a power cut may take it back here, and no
further. So whoever looks into the queue sees whole entries alone. Only here can a power cut leave what is torn; by the
checksum `recover` tells it from what was acknowledged.
"""

from __future__ import annotations

import os
import re
import stat
from binascii import crc32
from collections.abc import Callable, Sequence
from typing import Final

from maildefer.maildir import durable, names
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.journal_file import boot_name
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to, one_round
from maildefer.maildir.system import SYSTEM, System

FOLDER: Final = "synced"  # in `.maildefer/`
_NAME: Final = re.compile(r"(.+,S=([0-9]+))\.([0-9a-f]{8})\.([0-9a-f]{8})\Z").match
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_READ_BYTES: Final = 1 << 20
_LEFT_SECONDS: Final = 60.0  # what was not written since has been left by whoever pushed it
_MOST: Final = 10_000  # names that are looked at in a pass
_GONE: Final = (FileNotFoundError, NotADirectoryError, PermissionError)  # the folder, or the right to it


def is_on(layout: Layout) -> bool:
    """Whether pushes of this host into the queue are to take one sync, and the filesystem is one where they can."""
    try:
        facts = os.lstat(layout.synced)
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and durable.keeps_order(facts.st_dev)


class SyncedDrafts:
    """Where one queue's pushes of this process write entries, if one sync is to do; any thread."""

    def __init__(self, layout: Layout, placer: DraftPlacer, *, may: bool = True) -> None:
        self._folder = layout.synced
        # A front end that shares the queue may not write here.
        self._is_on = may and is_on(layout) and not placer.rights.is_shared
        self._boot = boot_name() if self._is_on else ""
        self._others: set[str] = set()  # keys of entries that were made elsewhere, and are not durable yet

    def path_of(self, key: str, data: bytes) -> str:
        """Return the path at which to write an entry; empty where it is to be in `tmp/`, as pushes take two syncs."""
        return f"{self._folder}/{key}.{crc32(data):08x}.{self._boot}" if self._is_on else ""

    def give_up(self, path: str, fault: OSError) -> bool:
        """Take two syncs from now on, if a file can't be made here any more; whether that was the fault's place."""
        if not path.startswith(self._folder) or not isinstance(fault, _GONE):
            return False
        self._is_on = False
        return True

    def note_other(self, key: str) -> None:
        """Note an entry that was made in `tmp/` all the same, and moved, and whose new name is to be synced."""
        if self._is_on:
            self._others.add(key)

    def are_durable(self, keys: Sequence[str]) -> bool:
        """Whether all of these, which this process has just moved to where they wait, were durable before."""
        if self._is_on and self._others:
            others = self._others.intersection(keys)
            self._others -= others
            return not others
        return self._is_on


def recover(
    layout: Layout,
    report: Callable[[str, bool], None] = lambda key, is_whole: None,
    *,
    mount_time: float = 0.0,
    system: System = SYSTEM,
) -> None:
    """Move what pushes have left to where it waits, and remove what is torn; report each key, and whether it is whole.

    What another boot of this host has left is nobody's. All else may be being pushed until it is a minute old, by the
    mount's time; if it is taken away from a push that goes on after all, that finds it moved, or begins again. What
    fails stays, and is raised in the end (OSError).
    """
    system = confined_to(layout.path, system)
    try:
        found = [match for name in system.listdir(layout.synced)[:_MOST] if (match := _NAME(name))]
    except FileNotFoundError:
        return
    if not found:
        return
    placer, moved, failed = DraftPlacer(layout, system=system), list[str](), list[OSError]()
    boot = boot_name() if is_on(layout) else ""  # else another host may be pushing
    with one_round(system):
        for match in found:
            path, key = f"{layout.synced}/{match[0]}", match[1]
            try:
                if names.pushed_by_us_at(key) is None or not _is_left(
                    path, match[4], boot, mount_time, system
                ):
                    continue
                if is_whole := _is_whole(path, int(match[2]), int(match[3], 16), system):
                    moved += placer.move_all([(path, key)])
                else:
                    system.unlink(path)
                report(key, is_whole)
            except FileNotFoundError:  # it was moved meanwhile
                pass
            except OSError as fault:
                failed.append(fault)
    if moved:
        placer.commit(moved, moved)
    if failed:
        raise failed[0]


def _is_left(path: str, boot: str, this_boot: str, mount_time: float, system: System) -> bool:
    if this_boot not in ("", boot):
        return True
    return system.lstat(path).st_mtime < mount_time - _LEFT_SECONDS


def _is_whole(path: str, size_bytes: int, checksum: int, system: System) -> bool:
    descriptor = system.open(path, _READ)
    try:
        facts = system.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != size_bytes:
            return False
        found = 0
        while data := system.read(descriptor, _READ_BYTES):
            found = crc32(data, found)
        return found == checksum
    finally:
        system.close(descriptor)
