"""The mount's time, kept against the boot clock: what is deferred goes by it, whatever is done to the wall clock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.maildir.layout import Format, Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.pool import status_record
from maildefer.pool.keeper.maintenance import Maintenance
from maildefer.pool.keeper.mount_time import MountTime
from maildefer.pool.keeper.standalone import StandaloneKeeper
from maildefer.pool.scoreboard import QueueWord
from maildefer.pool.scoreboard_slot import ScoreboardSlot
from maildefer.pool.worker import queue_view
from maildefer.pool.worker.queue_view import QueueView
from tests.support.queues import DATA, LABEL, START, World

LEASE = f"{LABEL}-1-0badcafe"
HOURS = 3 * 3600.0
AHEAD = 1000.0  # of the mount, before anything is set


class Host:
    """A keeper's thread and a worker of one host, on a mount whose clock is ahead of it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.layout: Layout = create_queue(str(path / "queue"))
        self.world = World()
        self.mount_ahead = AHEAD
        self.measured = 0
        self._at = self.world.uptime
        self.world.after("write", self._stamp)
        self.world.rules[-1].times = 1000
        clocks = SimpleNamespace(time=lambda: self.world.seconds)
        monkeypatch.setattr(queue_view, "time", clocks)
        monkeypatch.setattr(status_record, "time", clocks)
        for module in (queue_view, status_record):
            monkeypatch.setattr(module, "boottime", lambda: self.world.uptime)
        self.told: list[dict[str, Any]] = []
        monkeypatch.setattr(
            events, "emit", lambda event, **facts: self.told.append({"event": event, **facts})
        )
        self.shared = StandaloneKeeper.prepare(self.layout.path, max_crashes=5).context
        self.board = self.shared.board
        [queue] = self.shared.queues
        self.clock = MountTime(self.board, 0, self.layout, queue.name, self.world.system)
        heartbeat: Any = SimpleNamespace(
            queue=queue, format=Format(), lease=LEASE, last_good_beat=0.0, mount_time=self.clock
        )
        self.maintenance = Maintenance(self.shared, 0, heartbeat, lambda slot: None, system=self.world.system)
        self.maintenance._mount_files.write_status = lambda: None  # type: ignore[method-assign]
        self.worker = QueueView("run/queue", self.layout, 0, self.board, ScoreboardSlot(self.board, 0), LABEL)
        self.worker.claimer.serve_under(LEASE)

    @property
    def mount_time(self) -> float:
        return START + self.mount_ahead + self.world.uptime - self._at

    def _stamp(self) -> None:
        """The mount's server gives the keeper's file its time."""
        for name in os.listdir(self.layout.tmp):
            if name.startswith(".clock"):
                self.measured += 1
                os.utime(f"{self.layout.tmp}/{name}", (self.mount_time, self.mount_time))

    def looks(self) -> None:
        self.maintenance._round()

    def defers(self, seconds: float) -> float:
        """A message for so long: how long until it is due, by the mount's clock."""
        Path(self.layout.new, "1.x").write_bytes(DATA)
        claim = self.worker.claimer.claim("1.x")
        assert claim is not None
        name = claim.defer(seconds)
        os.unlink(f"{self.layout.later_new}/{name}")
        due = EntryName.parse(name).due
        assert due is not None
        return due - self.mount_time

    def shown(self) -> float:
        found: float = status_record.queue_record(self.shared, 0)["clock_offset_seconds"]
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, monkeypatch)
    yield made
    for end in (*made.shared.keeper, *made.shared.deferrals):
        end.close()


def test_what_is_deferred_goes_by_the_mounts_time(host: Host) -> None:
    host.looks()
    assert host.defers(60) == pytest.approx(60, abs=1)
    host.world.pass_time(30)
    assert host.defers(60) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("hours", [HOURS, -HOURS])
def test_a_wall_clock_that_is_set_changes_nothing_for_what_is_deferred(host: Host, hours: float) -> None:
    """Before the keeper has looked again, and after."""
    host.looks()
    host.world.seconds += hours
    assert host.defers(60) == pytest.approx(60, abs=1)
    host.looks()
    assert host.defers(60) == pytest.approx(60, abs=1)


@pytest.mark.parametrize("hours", [HOURS, -HOURS])
def test_nor_for_what_is_due(host: Host, hours: float) -> None:
    host.looks()
    host.world.seconds += hours
    now = host.mount_time
    for name in (f"1.due,a=1,n=1,d={int(now) - 5}", f"1.not,a=1,n=1,d={int(now) + 60}"):
        Path(host.layout.later_new, name).write_bytes(DATA)
    host.world.pass_time(60)
    host.mount_ahead -= 60  # the mount's clock does not move, so that only one of them is due
    host.looks()
    host.looks()  # the listing stands behind the promotion
    assert os.listdir(host.layout.new) == ["1.due,a=1,n=2"]


def test_it_is_measured_once_a_minute_and_as_soon_as_the_wall_clock_was_set(host: Host) -> None:
    """Since that may have been the mount's clock as well, where its server is this machine."""
    host.looks()
    assert host.measured == 1
    host.world.pass_time(5)
    host.looks()
    assert host.measured == 1
    host.world.seconds += HOURS
    host.mount_ahead += HOURS
    host.looks()
    assert host.measured == 2
    assert host.defers(60) == pytest.approx(60, abs=1)
    host.world.pass_time(59)
    host.looks()
    assert host.measured == 2
    host.world.pass_time(1)
    host.looks()
    assert host.measured == 3


def test_a_local_filesystem_goes_by_this_hosts_clock_and_is_set_with_it(host: Host) -> None:
    host.board.words[host.board.queue(0) + QueueWord.LOCAL] = 1
    host.mount_ahead = 0.0
    host.looks()
    host.world.seconds += HOURS
    host.mount_ahead += HOURS
    assert host.defers(60) == pytest.approx(60, abs=1)
    assert host.measured == 0, "no file is written for it"


def test_it_is_measured_before_the_first_claim_and_not_again_by_a_keeper_that_follows(host: Host) -> None:
    assert host.defers(60) == pytest.approx(60 - AHEAD, abs=1), "until then, the host's own clock counts"
    host.clock.measure_first()
    assert host.defers(60) == pytest.approx(60, abs=1)
    host.clock.measure_first()
    assert host.measured == 1


def test_a_measurement_that_took_long_does_not_replace_one_that_is_nearer(host: Host) -> None:
    host.looks()
    host.world.pass_time(60)
    host.world.take("fsync", 600)
    host.looks()
    assert host.measured == 2
    assert host.defers(60) == pytest.approx(60, abs=1)
    assert not [told for told in host.told if told.get("offset_ms", 0) < 0]


def test_a_first_measurement_that_took_long_is_made_again(host: Host) -> None:
    """It would be kept for a minute, in which this host's limits and due times were as much behind."""
    host.world.take("fsync", 11)
    host.clock.measure_first()
    assert host.measured == 2
    assert host.defers(60) == pytest.approx(60, abs=1)


def test_on_a_mount_that_is_always_slow_the_quickest_of_three_measurements_counts(host: Host) -> None:
    seconds = iter((30, 5, 20))
    host.world.before("fsync", lambda: host.world.pass_time(next(seconds)), times=3)
    host.clock.measure_first()
    assert host.measured == 3
    assert host.defers(60) == pytest.approx(55, abs=1), "behind, so that nothing is promoted early"


def test_a_clock_that_differs_from_the_mounts_is_told_and_shown_for_as_long_as_it_does(host: Host) -> None:
    host.looks()
    assert [told["offset_ms"] for told in host.told if told["event"] == "clock.differs"] == [AHEAD * 1000]
    assert host.shown() == AHEAD
    host.world.seconds += AHEAD
    assert host.shown() == 0
    host.looks()
    assert len([told for told in host.told if told["event"] == "clock.differs"]) == 1
