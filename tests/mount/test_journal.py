"""The journal on NFS: an end is the server's before its unlink is asked for, so other clients read it at once."""

from __future__ import annotations

import json
from typing import Any

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.guest import Guest
from tests.mount.harness import QUEUE, Crew
from tests.mount.test_pools import settle_accounts, take_away, welcome_back


@on("4.2", "3")
def test_an_audit_sees_the_ends_of_all_clients_at_once(vers: str, enlist: Enlist, tell: Tell) -> None:
    """While all pools run, and by one look: the one for what waits without a record."""
    crew = with_journal(enlist(vers))
    crew.begin()
    crew.feed(60, at_once=60)
    crew.drain()
    [total] = audit(crew)
    tell(vers, settle_accounts(crew), f"{total['looks']} looks")
    assert (total["accepted"], total["ended"], total["looks"]) == (180, 180, 1)


@on("4.2", "3")
def test_no_end_is_lost_with_the_client_that_recorded_it(vers: str, enlist: Enlist, tell: Tell) -> None:
    """Records of pushes may be: they accuse nobody."""
    crew = with_journal(enlist(vers))
    away = take_away(crew, Guest.kill)
    away.boot()
    crew.bed.mount(on=[away.name])
    crew.start_pool(away)
    figures = welcome_back(crew, away, killed=away)
    [total] = audit(crew)
    tell(vers, figures, f"{total['accepted']} on record")
    assert total["ended"] == total["accepted"] <= figures.accepted


def with_journal(crew: Crew) -> Crew:
    crew.make_queue()
    begun = crew.maildefer(crew.bed.clients[0], "audit", "--on", QUEUE)
    assert begun.wait(60) == 0, begun.err.read_text()
    return crew


def audit(crew: Crew) -> list[dict[str, Any]]:
    """What `maildefer audit` says on the last client: those whom it names, then the sum."""
    job = crew.maildefer(crew.bed.clients[-1], "audit", "--json", QUEUE)
    assert job.wait(180) in (0, 1), job.err.read_text()
    return list(map(json.loads, job.out.read_text().splitlines()))
