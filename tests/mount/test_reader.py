"""A mail reader may look into the queue at any time."""

from __future__ import annotations

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.test_pools import settle_accounts


@on("4.2", "3")
def test_a_mail_reader_that_opens_the_queue_changes_nothing(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    crew.begin()
    crew.feed(200, at_once=150)
    crew.await_handled(20)
    reader = crew.python(crew.bed.clients[1], "reader.py", "40")
    assert reader.wait(120) == 0, reader.err.read_text()
    seen, moved = map(int, reader.out.read_text().split())
    assert seen > 0
    assert moved > 0
    figures = settle_accounts(crew)
    returned = crew.count("entry.returned")
    tell(vers, figures, f"{seen} read, {moved} moved to cur/, {returned} brought back")
    assert returned == moved
    assert figures.extra == 0
