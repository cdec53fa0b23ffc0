"""Whole pools on three hosts over real NFS, under one fault at a time: nothing is lost, nobody hangs, nothing stays."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.guest import Guest
from tests.mount.harness import TTL_SECONDS, WORKERS, Crew, Figures, eventually
from tests.mount.wire import Link

AWAY_SECONDS = TTL_SECONDS * 1.5

_KEY = rb"(\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+,S=\d+)"
_LENGTH = rb"\x00\x00\x00[\x10-\xff]"  # of a name, as XDR has it
# Both names in one frame: only the RENAME call has them.
CLAIM = re.compile(_LENGTH + _KEY + rb"\x00.{0,400}\1,a=1:1,c0-", re.DOTALL)
DEFER = re.compile(_LENGTH + _KEY + rb",a=1:1,c0-.{0,400}\1,a=1,n=1,d=", re.DOTALL)
_BEAT = rb"(c0-[0-9a-f]{6}-\d+-[0-9a-f]{4,16})\.\d+\x00.{0,400}"
BEAT = re.compile(_LENGTH + _BEAT + _LENGTH + rb"\1\.\d+", re.DOTALL)
# NFSv3's REMOVE by its head, NFSv4's by its number, with the directory's handle before it: see RFC 1813 and RFC 7530.
_REMOVE3 = rb"\x00\x01\x86\xa3\x00\x00\x00\x03\x00\x00\x00\x0c.{40,400}"
_REMOVE4 = rb"\x00\x00\x00\x1c"
ACK = re.compile(rb"(?:" + _REMOVE3 + rb"|" + _REMOVE4 + rb")" + _LENGTH + _KEY + rb",a=1:1,c0-", re.DOTALL)


def settle_accounts(crew: Crew, killed: Guest | None = None, deaths: int = 0, dead: int = 0) -> Figures:
    """Everything drains and ends; what holds in every case is asserted here.

    What a killed host was writing in `tmp/` stays for the sweep, which takes it after 36 hours, as does the record of
    an effect that a killed worker was making. `deaths` are those of workers that a test has killed, `dead` the letters
    that are to be dead in the end, each with its reason.
    """
    crew.drain()
    crew.stop()
    figures = crew.reckon()
    assert figures.lost == 0
    assert figures.doubles == 0, "one claim a generation (I3, I4)"
    assert figures.extra <= figures.takeovers
    assert figures.extra <= figures.fences * WORKERS + deaths
    drafts = {
        path
        for path in figures.left
        if (killed and path.startswith("tmp/") and f"{killed.name}-" in path)
        or (deaths and path.startswith("tmp/.effect-"))
    }
    letters = {path for path in figures.left if path.startswith(".dead/")}
    reasons = {path for path in figures.left if path.startswith(".maildefer/dead/")}
    assert set(figures.left) - letters - reasons == drafts
    assert (len(letters), len(reasons)) == (dead, dead)
    return figures


def nobody_was_fenced(crew: Crew, vers: str, tell: Tell) -> None:
    figures = settle_accounts(crew)
    tell(vers, figures)
    assert figures.fences == 0


@on(*EVERY, chosen=("3",))
def test_without_faults_everything_is_handled_once(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers)
    crew.begin()
    crew.feed(200, at_once=200)
    figures = settle_accounts(crew)
    tell(vers, figures)
    assert (figures.accepted, figures.extra, figures.takeovers, figures.fences) == (600, 0, 0, 0)


@on(*EVERY, chosen=("4.2",))
def test_the_server_crashes_twice_and_nobody_is_fenced(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers)
    crew.begin()
    crew.feed(150, at_once=75)
    crew.crash_server(60, 160)
    nobody_was_fenced(crew, vers, tell)


@on(*EVERY, chosen=("4.2",))
def test_a_claim_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    lose_one_reply(CLAIM, vers, enlist, tell)


@on(*EVERY)
def test_a_defer_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    lose_one_reply(DEFER, vers, enlist, tell)


@on(*EVERY, chosen=("4.1",))
def test_an_ack_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    lose_one_reply(ACK, vers, enlist, tell)


@on(*EVERY)
def test_a_beat_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    lose_one_reply(BEAT, vers, enlist, tell)


def lose_one_reply(call: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = enlist(vers)
    crew.begin()
    crew.feed(120, at_once=40)
    crew.await_handled(20)
    crew.bed.lose_reply_for_good("c0", call)
    figures = settle_accounts(crew)
    tell(vers, figures)
    assert (figures.extra, figures.takeovers, figures.fences) == (0, 0, 0), "the look settles the doubt"
    told = [crew.count(event) for event in ("claim.lost", "lease.lost", "beat.failed")]
    assert told == [0, 0, 0], "nobody takes it for a loss"


@on(*EVERY)
def test_a_client_that_is_cut_off_longer_than_the_ttl_is_fenced_and_comes_back(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    away = take_away(crew, lambda guest: crew.bed.wire.partition(guest.name, "server"))
    crew.bed.wire.heal()
    tell(vers, welcome_back(crew, away))


@on(*EVERY)
def test_a_client_that_is_frozen_longer_than_the_ttl_is_fenced_and_comes_back(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    away = take_away(crew, Guest.freeze)
    away.thaw()
    tell(vers, welcome_back(crew, away))


@on(*EVERY)
def test_a_client_that_is_killed_is_fenced_and_may_start_anew(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers)
    away = take_away(crew, Guest.kill)
    away.boot()
    crew.bed.mount(on=[away.name])
    crew.start_pool(away)
    tell(vers, welcome_back(crew, away, killed=away))


def take_away(crew: Crew, how: Callable[[Guest], None]) -> Guest:
    """Take one client away while its handlers work, until the others have fenced it."""
    away = crew.bed.clients[0]
    crew.begin()
    crew.feed(250, at_once=150)
    crew.await_handled(20, away)
    eventually(lambda: crew.in_hand(away), "it has work in hand", 60)
    how(away)
    crew.await_fenced(away)
    return away


def welcome_back(crew: Crew, away: Guest, killed: Guest | None = None) -> Figures:
    eventually(lambda: crew.count("lease.joined", away) == 2, f"{away.name} joins under a new lease", 90)
    figures = settle_accounts(crew, killed)
    assert figures.fences == 1
    return figures


def at_work(vers: str, enlist: Enlist) -> Crew:
    crew = enlist(vers)
    crew.begin()
    crew.feed(150, at_once=75)
    crew.await_handled(20)
    return crew


@on(*EVERY)
def test_all_clients_are_cut_off_longer_than_the_ttl_and_nobody_is_fenced(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    """Whoever was away himself has seen nobody's silence."""
    crew = at_work(vers, enlist)
    for client in crew.bed.clients:
        crew.bed.wire.partition(client.name, "server")
    last_for(AWAY_SECONDS)
    crew.bed.wire.heal()
    nobody_was_fenced(crew, vers, tell)


@on("4.2", "3")
def test_the_server_is_frozen_longer_than_the_ttl_and_nobody_is_fenced(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = at_work(vers, enlist)
    crew.bed.server.freeze()
    last_for(AWAY_SECONDS)
    crew.bed.server.thaw()
    nobody_was_fenced(crew, vers, tell)


@on(*EVERY)
def test_a_worker_is_killed_while_its_request_is_on_its_way(vers: str, enlist: Enlist, tell: Tell) -> None:
    """The request may be executed seconds after its process has died: the audit finds what has landed."""
    crew = enlist(vers)
    away = crew.bed.clients[0]
    crew.begin()
    crew.feed(200, at_once=150)
    crew.await_handled(20, away)
    crew.bed.wire.partition(away.name, "server")
    eventually(lambda: not crew.in_hand(away), "its handlers have ended, and wait for the server", 60)
    crew.kill_workers(away)
    eventually(lambda: crew.count("worker.died", away) >= WORKERS, "the supervisor has seen them die", 60)
    crew.bed.wire.heal()
    figures = settle_accounts(crew, deaths=WORKERS)
    tell(vers, figures, f"{crew.count('worker.died', away)} died, {figures.takeovers} taken back")


def last_for(seconds: float) -> None:
    """A fault's length is what such a case is about; there is nothing to wait for but the time."""
    until = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > until, "time passes", seconds + 60)


@on(*EVERY)
def test_packets_are_lost_doubled_reordered_and_late(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = enlist(vers)
    crew.begin()
    for client in crew.bed.clients:
        for src, dst in ((client.name, "server"), ("server", client.name)):
            link = Link(loss=0.02, duplicate=0.05, reorder=0.1, delay_seconds=0.001, jitter_seconds=0.004)
            crew.bed.wire.shape(src, dst, link)
    crew.feed(60, at_once=60)
    nobody_was_fenced(crew, vers, tell)
