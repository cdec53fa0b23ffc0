"""A real disk that is full: a small tmpfs, mounted for the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.errors import NoSpace
from maildefer.maildir.claims import Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.push import Pusher
from tests.support.queues import LABEL, FakeSlots, everywhere

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small filesystem"),
]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,nr_inodes=100", "maildefer-test", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {os.fsdecode(mounted.stderr).strip()}")
    try:
        yield create_queue(f"{tmp_path}/queue")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def fill(pusher: Pusher, size: int) -> list[str]:
    """Push until the disk is full; the keys that were accepted."""
    keys: list[str] = []

    def push_on() -> None:
        while len(keys) < 1000:
            keys.append(pusher.push(lambda stem: [b"x" * size]))

    with pytest.raises(NoSpace, match="free space or inodes"):
        push_on()
    return keys


@pytest.mark.invariant(1)
@pytest.mark.parametrize("size", [30_000, 1])
def test_a_full_disk_refuses_pushes_cleanly_and_claims_go_on(layout: Layout, size: int) -> None:
    """Full of bytes, or of inodes."""
    pusher = Pusher(layout, host=LABEL)
    keys = fill(pusher, size)
    assert everywhere(layout) == {f"new/{key}": b"x" * size for key in keys}
    claimer = Claimer(layout, FakeSlots(), lease=f"{LABEL}-1-abcd", host=LABEL)
    for key in keys:
        claim = claimer.claim(key)
        assert claim is not None
        assert claim.read() == b"x" * size
        claim.ack()
    assert everywhere(layout) == {}
    pusher.push(lambda stem: [b"x" * size])


def test_a_full_disk_keeps_a_burial_waiting_and_loses_nothing(layout: Layout) -> None:
    keys = fill(Pusher(layout, host=LABEL), 1)
    claim = Claimer(layout, FakeSlots(), lease=f"{LABEL}-1-abcd", host=LABEL).claim(keys[0])
    assert claim is not None
    with pytest.raises(NoSpace):
        claim.bury("no route")
    assert len(everywhere(layout)) == len(keys)
    os.unlink(f"{layout.new}/{keys[1]}")
    claim.bury("no route")
    assert os.listdir(layout.dead_new) == [f"{keys[0]},n=1"]
