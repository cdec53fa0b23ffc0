"""A periodic task over real NFS: one call for each instant, while the server crashes or a reply is lost."""

from __future__ import annotations

import re
from itertools import pairwise

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist
from tests.mount.harness import Crew, eventually

EVERY_SECONDS = 2
_KEY = rb"\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+,S=\d+"
_NAME = rb"\x00\x00\x00[\x10-\xff]\d{10}," + _KEY  # with its length, as XDR has it
# Both names in one frame: only the RENAME call has them.
MOVE = re.compile(_NAME + rb".{0,400}" + _NAME, re.DOTALL)


def instants(crew: Crew) -> list[int]:
    lines = crew.lines("tick.pushed", task="workers.ticking.tick")
    return sorted(int(number) for line in lines for number in re.findall(r" instant=(\d+)", line))


def calls(crew: Crew) -> int:
    return sum(path.read_text().count("tick\n") for path in crew.bed.directory.glob("ticks.*"))


def settle_accounts(crew: Crew) -> None:
    """Each instant has one call: made, or waiting when the pools were stopped."""
    crew.stop()
    made = instants(crew)
    assert all(later - one == EVERY_SECONDS for one, later in pairwise(made)), made
    waiting = crew.bed.server.check(["sh", "-c", f"find {EXPORT}/queue/new -type f | wc -l"])
    assert calls(crew) + int(waiting) == len(made)
    assert (crew.count("tick.failed"), crew.count("lease.fenced")) == (0, 0)


def await_instants(crew: Crew, count: int) -> None:
    eventually(lambda: len(instants(crew)) >= count, f"{count} instants", 120)


@on("4.2", "3", chosen=("4.2",))
def test_the_server_crashes_twice_and_each_instant_has_one_call(vers: str, enlist: Enlist) -> None:
    crew = enlist(vers)
    crew.settings = "conf.ticking"
    crew.begin()
    for count in (4, 10):
        await_instants(crew, count)
        crew.bed.server.kill()
        crew.bed.server.boot()
    await_instants(crew, 20)
    settle_accounts(crew)


@on("4.2", "3")
def test_a_tick_whose_reply_is_lost_for_good(vers: str, enlist: Enlist) -> None:
    """The server has done it, its reply cache is gone, and the client asks again. No other host can finish it."""
    crew = enlist(vers)
    crew.settings = "conf.ticking"
    crew.make_queue()
    crew.start_pool(crew.bed.clients[0])
    await_instants(crew, 3)
    crew.bed.lose_reply_for_good("c0", MOVE)
    await_instants(crew, 10)
    settle_accounts(crew)
