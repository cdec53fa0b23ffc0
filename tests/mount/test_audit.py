"""The audit proves from one client what happened on all: it knows nothing of the notes of feeders and handlers."""

from __future__ import annotations

import json
from typing import Any

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import QUEUE, Crew
from tests.mount.test_pools import settle_accounts


@on("4.2", "3")
def test_an_audit_after_the_server_has_crashed_finds_the_end_of_everything(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    crew.make_queue()
    begun = crew.maildefer(crew.bed.clients[0], "audit", "--on", QUEUE)
    assert begun.wait(60) == 0, begun.err.read_text()
    crew.begin()
    crew.feed(100, at_once=50)
    crew.await_handled(40)
    crew.bed.server.kill()
    crew.bed.server.boot()
    figures = settle_accounts(crew)
    code, report = audit(crew)
    tell(vers, figures, f"the audit: {report['accepted']} accepted, {report['ended']} ended")
    assert (code, report["lost"], report["unproven"]) == (0, 0, 0)
    assert report["accepted"] == report["ended"] == figures.accepted
    crew.feed(1, at_once=1)
    for feeder in crew.feeders:
        assert feeder.wait(60) == 0
    crew.bed.server.check(["sh", "-c", f"cd {EXPORT}/queue/new && ls | head -n 1 | xargs rm"])
    code, report = audit(crew)
    assert (code, report["lost"], report["waiting"]) == (1, 1, 2), "somebody has taken one away"


def audit(crew: Crew) -> tuple[int, dict[str, Any]]:
    """What the last client's `audit` says of all."""
    job = crew.maildefer(crew.bed.clients[-1], "audit", "--json", "--patience", "3", QUEUE)
    code = job.wait(120)
    facts: dict[str, Any] = json.loads(job.out.read_text().splitlines()[-1])
    return code, {**facts, **facts["found"]}
