"""A small disk that fills up under load, and a quota: refused for now, nothing partial, and it goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security.load import Load, Watch
from tests.support.front_end_security import AttackedFrontEnd, eventually

pytestmark = [
    pytest.mark.lifecycle,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small filesystem"),
]
GUEST = 61_002
REASONS = {"disk": "No space left", "quota": "quota", "room": "under the limit"}
DISK_BYTES = 24 << 20
QUOTED_DISK_BYTES, QUOTA_BYTES = 256 << 20, 16 << 20


@pytest.fixture
def disk(limit: str) -> Iterator[Path]:
    """A small ext4, or a btrfs with a quota, where other users may go."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    image, point = place / "image", place / "disk"
    with image.open("wb") as file:
        file.truncate(QUOTED_DISK_BYTES if limit == "quota" else DISK_BYTES)
    point.mkdir()
    try:
        if limit == "quota":
            run("mkfs.btrfs", "-q", str(image))
            run("mount", "-o", "loop,commit=1", str(image), str(point))
            run("btrfs", "quota", "enable", str(point))
            run("btrfs", "qgroup", "limit", str(QUOTA_BYTES), str(point))
        else:
            run("mkfs.ext4", "-q", str(image))
            run("mount", "-o", "loop", str(image), str(point))
        yield point
    finally:
        subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False)
        shutil.rmtree(place)


def run(*command: str) -> None:
    give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    if shutil.which(command[0]) is None:
        give_up(f"{command[0]} is missing: apt-get install e2fsprogs btrfs-progs mount")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        give_up(f"{' '.join(command)} can't be done here: {done.stderr}")


def make_room(queue: Path, watch: Watch) -> int:
    """Take all entries away that were looked at, as workers would."""
    taken = 0
    for name in list(watch.seen):
        try:
            (queue / "new" / name).unlink()
            taken += 1
        except FileNotFoundError:
            pass
    return taken


@pytest.mark.invariant(1)
@pytest.mark.parametrize("limit", ["disk", "quota", "room"])
def test_what_has_no_room_is_refused_for_now_and_taken_again_when_there_is(disk: Path, limit: str) -> None:
    """ENOSPC and EDQUOT, met while writing; and the look at the free space, which comes before."""
    os.chown(disk, GUEST, GUEST)
    free = str(DISK_BYTES // 4) if limit == "room" else "0"
    arguments = ("--min-free-bytes", free, "--user", str(GUEST), "--group", str(GUEST))
    with AttackedFrontEnd(disk.parent, *arguments, queue=disk / "queue") as attacked:
        with Watch(attacked.queue) as watch, Load(attacked.address) as load:
            for _ in range(2):
                before = load.replies[b"452"]
                eventually(lambda: load.replies[b"452"] >= before + 10, "the disk is full")  # noqa: B023
                eventually(lambda: REASONS[limit] in attacked.log(), "the log says why")
                assert make_room(attacked.queue, watch) > 0
                had = len(load.acknowledged)
                eventually(lambda: len(load.acknowledged) >= had + 20, "it goes on by itself")  # noqa: B023
        assert attacked.process.poll() is None
        eventually(lambda: attacked.drafts() == [], "no draft is left")
    assert set(load.replies) == {b"452"}
    assert watch.partial == []
    assert load.acknowledged <= set(watch.numbers())
