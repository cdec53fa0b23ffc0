"""kill -9 of the front end, both of its processes, again and again under load."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from benchmarks import processes
from tests.security.load import Load, Watch
from tests.support.front_end_security import AttackedFrontEnd, eventually

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow]
KILLS = 8


@pytest.mark.invariant(1)
def test_every_250_that_a_client_saw_is_in_the_queue_whole_and_nothing_is_ever_partial_in_new(
    tmp_path: Path,
) -> None:
    chance = random.Random(20_261_124)
    with (
        AttackedFrontEnd(tmp_path) as attacked,
        Watch(attacked.queue) as watch,
        Load(attacked.address) as load,
    ):
        for kill in range(KILLS):
            had = len(load.acknowledged)
            eventually(lambda: len(load.acknowledged) >= had + 20, "mail is taken, also after a kill")  # noqa: B023
            time.sleep(chance.random() * 0.05)  # anywhere in a transaction
            processes.kill(attacked.pids() if kill % 2 else attacked.pids()[::-1])
            attacked.restart()
        eventually(lambda: len(load.acknowledged) >= had + 40, "and after the last")
    assert watch.partial == []
    assert load.acknowledged <= set(watch.numbers())
    assert len(load.acknowledged) >= 20 * KILLS
