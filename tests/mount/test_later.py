"""What is pushed for later over real NFS: by the server's clock, whatever those of the clients say."""

from __future__ import annotations

import re
import time

from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.guest import Job
from tests.mount.harness import Crew, eventually
from tests.mount.test_pools import _LENGTH, _REMOVE3, _REMOVE4, settle_accounts

AFTER_SECONDS = 25.0
COUNT = 40
SKEWS_SECONDS = (3600, -1800, 0)  # of the clients' clocks

_KEY = rb"(\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+,t=\d+,S=\d+)"
PUSH = re.compile(_LENGTH + _KEY + rb"\x00?.{0,400}" + _LENGTH + rb"\1,d=\d+", re.DOTALL)
RESCHEDULE = re.compile(_LENGTH + _KEY + rb",d=\d+.{0,400}\1,n=1,d=\d+", re.DOTALL)
CANCEL = re.compile(
    rb"(?:" + _REMOVE3 + rb"|" + _REMOVE4 + rb")" + _LENGTH + _KEY + rb",d=\d+:1,pop-", re.DOTALL
)


def begin(vers: str, enlist: Enlist) -> Crew:
    """Pools on clients whose clocks are off by up to an hour."""
    crew = enlist(vers)
    for guest, seconds in zip(crew.bed.clients, SKEWS_SECONDS, strict=True):
        guest.check(["date", "-s", f"@{server_time(crew) + seconds:.0f}"])
    crew.begin()
    return crew


def server_time(crew: Crew) -> float:
    return float(crew.bed.server.check(["date", "+%s.%N"]))


def plan(crew: Crew, change: str = "", count: int = COUNT, after_seconds: float = AFTER_SECONDS) -> Job:
    """Push on the first client, whose clock is an hour ahead."""
    argv = [str(count), str(after_seconds), *([change] if change else [])]
    job = crew.python(crew.bed.clients[0], "plan.py", *argv)
    crew.feeders.append(job)
    return job


def must_be_due(crew: Crew, set_back_seconds: float = 0.0) -> int:
    """Nothing has been handled before its time; returns how much has been.

    A server whose clock is set back by its boot is known to the clients as it was for up to a minute.
    """
    started = [key for key, _ in crew.notes("start")]
    now = server_time(crew) + set_back_seconds
    assert [key for key in started if float(key.partition(".")[0]) > now] == []
    return len(started)


@on(*EVERY, chosen=("4.2",))
def test_what_is_pushed_for_later_is_handled_then_though_the_server_crashes(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = begin(vers, enlist)
    pushing = plan(crew)
    eventually(lambda: len(crew.accepted()) > COUNT / 4, "some are pushed", 60)
    ahead = server_time(crew) - time.time()
    crew.bed.server.kill()
    crew.bed.server.boot()
    set_back_seconds = max(0.0, ahead - (server_time(crew) - time.time())) + 0.1
    assert set_back_seconds < 3
    assert pushing.wait(120) == 0, pushing.err.read_text()
    dues = [float(key.partition(".")[0]) for key in crew.accepted()]
    assert min(dues) > server_time(crew) - 120, "not by the clock of the pusher"
    assert max(dues) <= server_time(crew) + AFTER_SECONDS + 1, "not by the clock of the pusher"
    eventually(lambda: must_be_due(crew, set_back_seconds) == COUNT, "all are handled", 120)
    figures = settle_accounts(crew)
    tell(vers, figures, f"its clock set back by {set_back_seconds:.1f} s")
    assert (figures.accepted, figures.extra, figures.fences) == (COUNT, 0, 0)


def lose_reply(crew: Crew, call: re.Pattern[bytes], job: Job) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    passed = crew.bed.wire.lose_reply("c0", call)
    assert passed.wait(60), f"the client sends such a call: {job.err.read_text()}"
    crew.bed.restart_nfsd()
    crew.bed.wire.reset("c0")
    crew.bed.wire.heal()
    assert job.wait(120) == 0, job.err.read_text()


@on(*EVERY)
def test_a_push_for_later_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = begin(vers, enlist)
    lose_reply(crew, PUSH, plan(crew))
    eventually(lambda: must_be_due(crew) == COUNT, "all are handled", 120)
    figures = settle_accounts(crew)
    tell(vers, figures)
    assert (figures.accepted, figures.extra, figures.fences) == (COUNT, 0, 0)


@on(*EVERY)
def test_a_cancel_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = begin(vers, enlist)
    planning = plan(crew, "cancel")
    lose_reply(crew, CANCEL, planning)
    key, answer = planning.out.read_text().split()
    assert answer == "True"
    eventually(lambda: must_be_due(crew) == COUNT - 1, "all others are handled", 120)
    figures = settle_accounts(crew)
    tell(vers, figures)
    assert key not in {key for key, _ in crew.notes("start")}
    assert (figures.accepted, figures.extra, figures.fences) == (COUNT - 1, 0, 0)


@on(*EVERY)
def test_a_reschedule_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = begin(vers, enlist)
    planning = plan(crew, "reschedule", count=2, after_seconds=3600)
    lose_reply(crew, RESCHEDULE, planning)
    key = planning.out.read_text().strip()
    began = time.monotonic()
    eventually(lambda: crew.notes("end"), "it is handled at its new time", 90)
    assert [found for found, _ in crew.notes("start")] == [key]
    tell(vers, None, f"handled {time.monotonic() - began:.0f} s later")
    other = crew.python(
        crew.bed.clients[1], "-m", "maildefer.cli", "queue", "release", "/mnt/nfs/queue", "--all"
    )
    assert other.wait(60) == 0, other.err.read_text()
    assert settle_accounts(crew).extra == 0
