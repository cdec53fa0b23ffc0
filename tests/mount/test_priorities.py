"""Entries of any priority over real NFS: the high ones are handled first, and each once, whatever is lost."""

from __future__ import annotations

import re
from statistics import mean

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import WORKERS, Crew, Figures, eventually
from tests.mount.test_pools import _LENGTH, settle_accounts

COUNT = 90
_KEY = rb"(\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+,p=(?:high|low),S=\d+)"
# Both names in one frame, and nothing behind the second: only a push's RENAME call has them.
PUSH = re.compile(_LENGTH + _KEY + rb"\x00{0,3}[^,].{0,400}" + _LENGTH + rb"\1(?!,)", re.DOTALL)


def push(vers: str, enlist: Enlist) -> Crew:
    """Push on a client while no pool runs."""
    crew = enlist(vers, clients=1)
    crew.make_queue()
    crew.feed(COUNT, at_once=COUNT, priorities=True)
    return crew


def settle_in_order(crew: Crew) -> Figures:
    """A pool handles all; of what each of its workers was given, the high ones came first, and the low ones last."""
    assert crew.feeders[0].wait(120) == 0, crew.feeders[0].err.read_text()
    crew.start_pool(crew.bed.clients[0])
    figures = settle_accounts(crew)
    assert (figures.accepted, figures.extra, figures.fences) == (COUNT, 0, 0)
    orders = list(filter(None, (path.read_text() for path in crew.bed.directory.glob("journal.c0.*"))))
    assert len(orders) == WORKERS
    for order in orders:
        places: dict[str, list[int]] = {"high": [], "normal": [], "low": []}
        for place, line in enumerate(order.splitlines()):
            if line.startswith("start "):
                found = re.search(r",p=(high|low),", line)
                places[found[1] if found else "normal"].append(place)
        assert mean(places["high"]) < mean(places["normal"]) < mean(places["low"])
    return figures


@on("4.2", "3")
def test_the_server_crashes_while_they_are_pushed(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = push(vers, enlist)
    eventually(lambda: len(crew.accepted()) > COUNT / 4, "some are pushed", 60)
    crew.bed.server.kill()
    crew.bed.server.boot()
    tell(vers, settle_in_order(crew))


@on("4.2", "3")
def test_a_push_with_a_priority_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = push(vers, enlist)
    crew.bed.lose_reply_for_good("c0", PUSH)
    tell(vers, settle_in_order(crew))
