"""Requests by HTTP with an Idempotency-Key over real NFS: each key has its entries once, whichever host is asked."""

from __future__ import annotations

import re

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew, eventually

KEYS = 12
CLIENTS = 3  # of each front end: ask_by_http.py
# Both names in one frame: only the RENAME call has them.
MARKER = re.compile(rb"\x00\x00\x00\x16\.once-[0-9a-f]{16}.{0,400}\x00\x00\x00\x20[0-9a-f]{32}", re.DOTALL)
ENTRY = re.compile(
    rb"\x00\x00\x00[\x10-\xff](\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+)\x00*.{0,400}\1,S=\d+", re.DOTALL
)


def ask(crew: Crew) -> None:
    """Have a front end on each client, and the same keys asked for on both."""
    crew.make_queue()
    for guest in crew.bed.clients:
        crew.feeders.append(crew.python(guest, "ask_by_http.py", str(KEYS)))


def answers(crew: Crew) -> list[str]:
    return [" ".join(row) for row in crew.rows("answers.*")]


def each_key_has_its_entries_once(crew: Crew, vers: str, tell: Tell) -> None:
    for feeder in crew.feeders:
        assert feeder.wait(400) == 0, f"{feeder.guest.name}: {feeder.err.read_text()}"
    told = answers(crew)
    tell(vers, None, f"{len(told)} answers")
    assert len(told) == len(crew.bed.clients) * CLIENTS * KEYS
    assert len(set(told)) == KEYS, "all who ask for a key have one answer"
    there = crew.bed.server.check(["sh", "-c", f"ls {EXPORT}/queue/new"]).split()
    assert sorted(there) == sorted(key for line in set(told) for key in line.split()[1:])
    assert len(there) == 2 * KEYS


@on("4.2", "3", chosen=("4.2",))
def test_the_server_crashes_while_two_hosts_are_asked_for_the_same(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers, clients=2)
    ask(crew)
    eventually(lambda: len(answers(crew)) > KEYS, "some are answered", 120)
    crew.bed.server.kill()
    crew.bed.server.boot()
    each_key_has_its_entries_once(crew, vers, tell)


@on("4.2", "3")
def test_a_marker_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    lose(MARKER, vers, enlist, tell)


@on("4.2", "3")
def test_an_entry_of_a_request_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    lose(ENTRY, vers, enlist, tell)


def lose(what: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers, clients=2)
    passed = crew.bed.wire.lose_reply("c0", what)
    ask(crew)
    assert passed.wait(120), "the client sends such a call"
    crew.bed.restart_nfsd()
    crew.bed.wire.reset("c0")
    crew.bed.wire.heal()
    each_key_has_its_entries_once(crew, vers, tell)
