"""A folder that one host replaces, while the others know it by the handle of the one before."""

from __future__ import annotations

from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import eventually
from tests.mount.test_pools import settle_accounts

REPLACED = 20


@on(*EVERY)
def test_a_folder_is_replaced_again_and_again_while_all_hosts_push_and_claim(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    crew.begin()
    crew.feed(150, at_once=20, pause_seconds=0.15)
    replacing = crew.python(crew.bed.clients[0], "replace.py", str(REPLACED), "0.5")
    eventually(lambda: len(crew.notes("end")) >= 100, "messages are handled", 120)
    assert replacing.wait(180) == 0, replacing.err.read_text()
    figures = settle_accounts(crew)
    replaced = len(replacing.out.read_text().split())
    tell(vers, figures, f"{replaced} folders replaced")
    assert replaced >= REPLACED
    assert (figures.extra, figures.takeovers, figures.fences) == (0, 0, 0)
    assert crew.count("claim.lost") == 0
