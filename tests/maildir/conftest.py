"""One queue in a world with faults, and one claimer with a lease in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.maildir import system
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import lease_name
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.leases import Lease
from tests.support.queues import DATA, LABEL, FakeSlots, World, holder


class Every(set[int]):
    """A set that everything is in."""

    def __contains__(self, member: object) -> bool:
        return True


@pytest.fixture(autouse=True)
def folders_are_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    """On btrfs too, as these tests watch which folders are; there a commit does it, which the power cuts try."""
    monkeypatch.setattr(system, "_without_commit", Every())


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A temporary directory that other users can reach."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o777)
        yield Path(path)


@pytest.fixture
def layout(tmp_path: Path, world: World) -> Layout:
    layout = create_queue(str(tmp_path / "queue"), system=world.system)
    world.forget()
    return layout


@pytest.fixture
def pusher(layout: Layout, world: World) -> Pusher:
    return Pusher(layout, host=LABEL, system=world.system)


@pytest.fixture
def slots() -> FakeSlots:
    return FakeSlots()


@pytest.fixture
def lease(layout: Layout, world: World) -> Lease:
    lease = Lease.join(layout, lease_name(LABEL, world.system), holder(), system=world.system)
    world.forget()
    return lease


@pytest.fixture
def claimer(layout: Layout, slots: FakeSlots, lease: Lease, world: World) -> Claimer:
    claimer = Claimer(layout, slots, lease=lease.name, host=LABEL, system=world.system)
    world.forget()
    return claimer


@pytest.fixture
def claimed(pusher: Pusher, claimer: Claimer, world: World) -> Callable[[], Claim]:
    """Push an entry and claim it; what was asked of the filesystem for that is forgotten."""

    def push_and_claim(data: bytes = DATA) -> Claim:
        claim = claimer.claim(pusher.push(lambda stem: [data]))
        assert claim is not None
        world.forget()
        return claim

    return push_and_claim
