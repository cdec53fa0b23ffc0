"""A mail reader may look into the queue at any time."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import QUEUE
from tests.mount.test_pools import settle_accounts

DEAD = 5  # from each client


@on("4.2", "3")
def test_a_mail_reader_that_opens_the_queue_changes_nothing(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    crew.begin()
    crew.feed(200, at_once=150, dead=DEAD)
    crew.await_handled(20)
    reader = crew.python(crew.bed.clients[1], "reader.py", "40")
    assert reader.wait(120) == 0, reader.err.read_text()
    seen, moved = map(int, reader.out.read_text().split())
    assert seen > 0
    assert moved > 0
    figures = settle_accounts(crew, dead=2 * DEAD)
    returned = crew.count("entry.returned")
    tell(vers, figures, f"{seen} read, {moved} moved to cur/, {returned} brought back")
    assert returned == moved
    assert figures.extra == 0


@on("4.2", "3")
def test_mutt_may_open_the_queue_the_deferred_and_the_dead(vers: str, enlist: Enlist, tell: Tell) -> None:
    if shutil.which("mutt") is None:
        text = "missing mutt: apt-get install --no-install-recommends mutt"
        pytest.fail(text) if os.environ.get("CI") == "true" else pytest.skip(text)
    crew = enlist(vers, clients=2)
    crew.begin()
    crew.feed(200, at_once=150, dead=DEAD)
    crew.await_handled(40)
    for folder in (QUEUE, f"{QUEUE}/.later", f"{QUEUE}/.dead", QUEUE):
        mutt = crew.python(crew.bed.clients[1], "mutt.py", folder, "2")
        assert mutt.wait(120) == 0, mutt.out.read_text() + mutt.err.read_text()
    figures = settle_accounts(crew, dead=2 * DEAD)
    moved = [path for path in figures.left if path.startswith(".dead/cur/")]
    tell(
        vers,
        figures,
        f"{crew.count('entry.returned')} brought back, {len(moved)} of the dead are marked as seen or old",
    )
    assert len(moved) > 0, "mutt has been there"
    assert figures.extra == 0
