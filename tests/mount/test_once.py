"""`message.once` over real NFS: what is done is known, and what was interrupted is told, whatever dies or is lost."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew, Figures
from tests.mount.test_audit import audit
from tests.mount.test_journal import with_journal
from tests.mount.test_pools import settle_accounts

KILLED = 3  # handlers of each client
# Both names in one frame: only the RENAME call has them.
BEGIN = re.compile(rb"\.effect-\d+-[0-9a-f]{16}.{0,400}\x00\x00\x00\x20[0-9a-f]{32}", re.DOTALL)
END = re.compile(rb"\d,begun,[0-9a-f]{16}.{0,400}\d,done,[0-9a-f]{16}", re.DOTALL)


def begin(vers: str, enlist: Enlist, killed: int = 0) -> Crew:
    """Two clients; on each, so many handlers are killed in their blocks."""
    crew = enlist(vers, clients=2)
    crew.settings = "conf.effects"
    with_journal(crew).begin()
    crew.feed(50, at_once=50, dead=killed)
    return crew


def effects(crew: Crew) -> dict[str, Counter[str]]:
    """By what the handlers noted: how often that was so of each key."""
    found = {word: Counter[str]() for word in ("new", "interrupted", "done", "known")}
    for word, key in crew.rows("effects.*"):
        found[word][key] += 1
    return found


def settle_effects(crew: Crew, tell: Tell, vers: str, deaths: int = 0) -> tuple[Figures, int]:
    """What holds in every case; returns how many were told as interrupted, too."""
    figures = settle_accounts(crew, deaths=deaths)
    found = effects(crew)
    new, interrupted, done = found["new"], found["interrupted"], found["done"]
    tell(vers, figures, f"{interrupted.total()} told as interrupted")
    assert set(new | interrupted) == crew.accepted(), "none is forgotten"
    assert max(new.values()) == 1, "none is done again without being told"
    assert max(done.values()) == 1, "nor after its end"
    assert (new + interrupted - done).total() <= deaths
    assert {key for key, _ in crew.notes("defer")} <= set(found["known"])
    assert figures.fences == 0
    code, report = audit(crew)
    assert (code, report["lost"], report["unproven"]) == (0, 0, 0)
    assert report["accepted"] == report["ended"] == figures.accepted
    return figures, interrupted.total()


@on("4.2", "3")
def test_workers_are_killed_in_their_blocks_and_the_server_crashes_twice(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    """While it is away all workers of a client are killed; what they have asked for may be done after that."""
    crew = begin(vers, enlist, KILLED)
    killed = KILLED * len(crew.bed.clients)
    _, interrupted = settle_effects(crew, tell, vers, killed + crew.crash_server(10, 50, workers_too=True))
    assert interrupted >= killed


@on("4.2", "3")
@pytest.mark.parametrize("call", [BEGIN, END], ids=["begin", "end"])
def test_a_begin_or_an_end_whose_reply_is_lost_for_good(
    call: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell
) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = begin(vers, enlist)
    crew.bed.lose_reply_for_good("c0", call)
    figures, interrupted = settle_effects(crew, tell, vers)
    assert (figures.extra, figures.takeovers, interrupted) == (0, 0, 0), "the look settles the doubt"
