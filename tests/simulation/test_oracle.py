"""What the oracle makes of requests that land late."""

from __future__ import annotations

import pytest

from maildefer.maildir.layout import Layout
from tests.simulation.oracle import Oracle
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import File, Server
from tests.simulation.stories import Story, Violation
from tests.simulation.weather import Weather
from tests.simulation.world import Request, World


def test_a_claim_that_is_settled_late_leaves_its_worker_on_the_next_one() -> None:
    layout, worker = Layout("/q"), Process("worker", 7)
    oracle = Oracle(World(Scheduler(0), Server(), Weather()), [layout])
    oracle.processes[7] = worker
    oracle.stories["1.x"] = Story(b"", worker)
    late, now = (
        f"{layout.cur}/{key},a=1:1,h-1-0123456789ab.7.{seq}" for seq, key in enumerate(("1.x", "2.x"), 1)
    )
    oracle.outcomes[late], oracle.handling[7] = "Acked", now
    oracle.done(Request("unlink", late, "", worker, 0.0, late=True), File(1), None)
    oracle.timed_out(worker)
    oracle.outcomes[now] = "Acked"
    oracle.done(Request("unlink", now, "", worker, 0.0), File(2), None)
    with pytest.raises(Violation):
        oracle.timed_out(worker)
