"""What the oracle makes of requests that land late."""

from __future__ import annotations

import pytest

from maildefer.maildir.layout import Format, Layout
from tests.simulation.faults import FaultRates
from tests.simulation.histories import History, Violation
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import File, Server
from tests.simulation.world import TTL_SECONDS, Request, World


def test_a_claim_that_is_settled_late_leaves_its_worker_on_the_next_one() -> None:
    layout, worker = Layout("/q"), Process("worker", 7)
    oracle = Oracle(World(Scheduler(0), Server(), FaultRates()), [layout])
    oracle.processes[7] = worker
    oracle.histories["1.x"] = History(b"", worker)
    late, now = (
        f"{layout.cur}/{key},a=1:1,h-1-0123456789ab.7.{seq}" for seq, key in enumerate(("1.x", "2.x"), 1)
    )
    oracle.outcomes[late], oracle.handling[7] = "Acked", {now}
    oracle.done(Request("unlink", late, "", worker, 0.0, late=True), File(1), None)
    oracle.timed_out(worker)
    oracle.outcomes[now] = "Acked"
    oracle.done(Request("unlink", now, "", worker, 0.0), File(2), None)
    with pytest.raises(Violation):
        oracle.timed_out(worker)


def test_a_keeper_that_joins_late_may_mind_its_stopped_supervisor_from_then_on() -> None:
    layout, supervisor = Layout("/q"), Process("supervisor", 5)
    keeper, worker = Process("keeper", 6, supervisor), Process("worker", 7, supervisor)
    world = World(Scheduler(0), Server(), FaultRates())
    beats = Oracle(world, [layout]).beats
    supervisor.frozen_until = 200.0
    world.scheduler.now = 90.0
    beats.joined(Request("rename", "", "", keeper, 90.0), layout, "h-6-0123456789ab.0")
    world.scheduler.now = 100.0  # its reply was lost, so it tries again, and then has joined
    beats.joined(Request("rename", "", "", keeper, 100.0), layout, "h-6-ba9876543210.0")
    supervisor.leases = lambda: {layout.path: "h-6-ba9876543210"}
    world.scheduler.now = 100.0 + Format().beat_seconds + TTL_SECONDS
    claim = Request("rename", f"{layout.new}/1.x", "", worker, 100.0)
    beats.must_be_led(claim)
    world.scheduler.now += 1
    beats.joined(Request("rename", "", "", keeper, 110.0), layout, "h-6-0000000000ab.0")
    world.scheduler.now = 100.0 + 2 * Format().beat_seconds + TTL_SECONDS + 1
    with pytest.raises(Violation):
        beats.must_be_led(claim)
