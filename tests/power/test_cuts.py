"""The power goes at every moment, on a disk whose writes were recorded: what was pushed is there, once and whole."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.mount.bed import Bed, missing
from tests.mount.guest import Guest
from tests.power.conftest import WHOLE, Tell, require_tools
from tests.power.disks import MAKE
from tests.power.record import PAGE_BYTES, SECTOR_BYTES, Entry, cuts, entries, marks_before

ROOT = Path(__file__).resolve().parent.parent.parent
PUSHES, CUTS = ("150", "0") if WHOLE else ("30", "25")
MEMORY_MEBIBYTES = 1536


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """A machine whose kernel has dm-log-writes, and whose root one need not be."""
    if text := missing():
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    require_tools()
    with Bed() as bed:
        guest = bed.add("power", 20, memory_mebibytes=MEMORY_MEBIBYTES)
        guest.boot()
        yield guest


def try_cuts(guest: Guest, kind: str, *more: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "tests.power", kind, "--pushes", PUSHES, *more]
    env = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    job = guest.run(argv, env)
    assert job.wait(1200) == 0, job.err.read_text()
    facts: dict[str, Any] = json.loads(job.out.read_text())
    return facts


@pytest.mark.invariant(1)
@pytest.mark.invariant(2)
@pytest.mark.parametrize("kind", MAKE)
def test_what_was_acknowledged_survives_each_power_cut_and_is_proven(
    kind: str, guest: Guest, tell: Tell
) -> None:
    facts = try_cuts(guest, kind, "--cuts", CUTS)
    found = facts.pop("found")
    tell(filesystem=kind, kernel=guest.check(["uname", "-r"]).strip(), **facts, found=len(found))
    assert found == [], "\n".join(found)
    assert facts["pushed"] == int(PUSHES)
    assert facts["unique"] >= 3, "keys become free again"
    assert facts["keeps_order"] == (kind != "btrfs")
    assert facts["cuts"] >= int(CUTS)
    assert facts["unsynced"], "some cuts come between a push and the writing of its record"


@pytest.mark.invariant(1)
@pytest.mark.invariant(2)
@pytest.mark.parametrize("kind", MAKE if WHOLE else ["ext4", "btrfs"])
def test_power_cuts_while_emptied_folders_are_replaced_lose_nothing(
    kind: str, guest: Guest, tell: Tell
) -> None:
    facts = try_cuts(guest, kind, "--replace", "--cuts", CUTS)
    found = facts.pop("found")
    tell(filesystem=kind, **facts, found=len(found))
    assert found == [], "\n".join(found)
    assert facts["pushed"] == int(PUSHES)
    assert facts["replaced"], "folders are emptied again and again"


ONE_SYNC = [("ext4", ""), ("xfs", "")]
if WHOLE:
    ONE_SYNC += [("ext4", one) for one in ("data=writeback", "data=journal", "nodelalloc", "dioread_lock")]


@pytest.mark.invariant(1)
@pytest.mark.invariant(2)
@pytest.mark.parametrize(("kind", "options"), ONE_SYNC)
def test_one_sync_is_enough_where_order_is_kept(kind: str, options: str, guest: Guest, tell: Tell) -> None:
    facts = try_cuts(guest, kind, "--one-sync", "--mount", options, "--cuts", CUTS)
    found = facts.pop("found")
    tell(filesystem=kind, mounted=options or "defaults", **facts, found=len(found))
    assert found == [], "\n".join(found)
    assert facts["pushed"] == int(PUSHES)
    assert facts["recovered"], "some cuts come between the sync and the rename"


@pytest.mark.parametrize("kind", ["ext4", "xfs"] if WHOLE else ["ext4"])
@pytest.mark.parametrize(
    ("forgotten", "texts"),
    [
        ("check", ("is not whole",)),
        ("recovery", ("left where one sync was to do",)),
        ("files", ("is damaged", "is lost")),
    ],
)
def test_what_one_sync_needs_is_found_missing(
    kind: str, forgotten: str, texts: tuple[str, ...], guest: Guest, tell: Tell
) -> None:
    facts = try_cuts(guest, kind, "--one-sync", "--forget", forgotten, "--cuts", "40")
    found = facts.pop("found")
    tell(filesystem=kind, forgotten=forgotten, **facts, found=len(found))
    assert any(text in one for one in found for text in texts), found


FORGOTTEN = [("ext4", "files"), ("ext4", "directories")]
if WHOLE:
    FORGOTTEN = [*product(MAKE, ("files", "directories", "markers")), ("btrfs", "order")]


@pytest.mark.parametrize(("kind", "forgotten"), FORGOTTEN)
def test_a_sync_that_is_left_out_is_found(kind: str, forgotten: str, guest: Guest, tell: Tell) -> None:
    facts = try_cuts(guest, kind, "--forget", forgotten, "--cuts", "0" if forgotten == "order" else "40")
    found = facts.pop("found")
    tell(filesystem=kind, forgotten=forgotten, **facts, found=len(found))
    wanted = {
        "files": ("is damaged", "is not whole"),
        "directories": ("is lost",),
        "markers": (",q=",),
        "order": ("of the unique key",),
    }
    assert any(text in one for one in found for text in wanted[forgotten]), found
    assert not any("the audit" in one for one in found), "it names what is lost, and nothing else"


def log_of(path: Path, *written: tuple[int, int, bytes]) -> list[Entry]:
    """A log as the kernel writes it: (byte on the disk, flags, data or a mark's text)."""
    with open(path, "wb") as log:
        log.write(
            struct.pack("<QQQI", 0x6A736677736872, 1, len(written), SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0")
        )
        for at, flags, data in written:
            sectors, mark = (0, data) if flags & 8 else (len(data) // SECTOR_BYTES, b"")
            head = struct.pack("<QQQQ", at // SECTOR_BYTES, sectors, flags, len(mark)) + mark
            log.write(head.ljust(SECTOR_BYTES, b"\0") + (b"" if mark else data))
    return list(entries(str(path)))


def test_a_cut_has_all_that_was_flushed_and_some_of_what_was_not(tmp_path: Path) -> None:
    page = bytes(PAGE_BYTES)
    log = log_of(
        tmp_path / "log",
        (0, 0, page),
        (4096, 1, page),
        (0, 8, b"told"),
        (8192, 0, page * 2),
        (16384, 3, page),
        (0, 8, b"later"),
    )
    assert [entry.mark for entry in log] == ["", "", "told", "", "", "later"]
    seen = set()
    for seed in range(40):
        exact, torn, last = cuts(log, 0, Random(seed))
        assert [cut.end for cut in (exact, torn, last)] == [2, 2, 5]
        assert exact.pieces == last.pieces == ()
        seen.add(tuple(at for at, _, _ in torn.pieces))
        assert marks_before(log, exact) == ["told"], "set before the second flush was confirmed"
        assert marks_before(log, last) == ["told", "later"]
    assert seen == {(), (8192,), (12288,), (8192, 12288)}
