"""What a destination takes at a time, and in a time, from two hosts together: judged by what its server sees."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from maildefer.maildir.push import Pusher
from maildefer.message.envelope import block
from tests.lifecycle.conftest import Start
from tests.lifecycle.machines import machine
from tests.lifecycle.project import APPLICATION, Project, eventually
from tests.support import next_server

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow]
RATE, PERIOD_SECONDS = 6, 2


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, APPLICATION.parent / "delivering", queues=("run/outgoing",))


def push(project: Project, *recipients: str) -> None:
    def composed(to: str):
        return lambda stem: [
            block(stem, "ann@s.example", to, host="test", when=time.time(), via="push"),
            b"Subject: x\n\nx\n",
        ]

    Pusher(project.queue, host="test").push_together([composed(to) for to in recipients])


def test_connections_and_rate_of_a_destination_are_kept_by_two_hosts_together(
    project: Project, start: Start
) -> None:
    with next_server.running() as few, next_server.running() as seldom:
        few.delay_seconds = 0.05
        config = {
            "port": few.port,
            "connections": 3,
            "destinations": {
                "seldom.example": {
                    "host": "127.0.0.1",
                    "port": seldom.port,
                    "rate": f"{RATE}/{PERIOD_SECONDS}s",
                    "connections": None,
                }
            },
        }
        pools = [
            start(host=host, workers=2, environ={"OUTGOING": json.dumps(config), **machine(project, host)})
            for host in ("a", "b")
        ]
        to_few = [f"{number}@few.example" for number in range(60)]
        to_seldom = [f"{number}@seldom.example" for number in range(4 * RATE)]
        push(project, *to_few, *to_seldom)
        eventually(project.is_empty, "all is sent", seconds=90)
        assert [few.copies(one) for one in to_few] == [1] * len(to_few)
        assert [seldom.copies(one) for one in to_seldom] == [1] * len(to_seldom)
        assert few.most_at_once == 3, "and no fewer: what two hosts may do, they do"
        took = seldom.taken_at[-1] - seldom.taken_at[0]
        assert took > 3 * PERIOD_SECONDS - 1, "the last six begin three periods after the first"
        assert all(pool.events("entry.delivered") for pool in pools), "both hosts send"
    assert [pool.stop() for pool in pools] == [0, 0]
