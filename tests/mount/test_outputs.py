"""What handlers send over real NFS: one entry for each message that is sent, whatever dies, is lost or is away."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew, eventually
from tests.mount.test_pools import settle_accounts

MESSAGES, KILLED = 3, 3
# Both names in one frame: only the RENAME call has them.
COMMIT = re.compile(rb",a=1:1,c0-.{0,400},o=[0-9a-f]{10},a=1:1,c0-", re.DOTALL)
PUBLISH = re.compile(rb"[0-9a-f]{10}\.(\d+\.M\d+P\d+Q\d+R[0-9a-f]{16}).{0,400}[^.]\1", re.DOTALL)


def begin(vers: str, enlist: Enlist, killed: int = 0) -> Crew:
    """Two clients; on each, so many handlers are killed after they have sent."""
    crew = enlist(vers, clients=2)
    crew.settings, crew.more_queues = "conf.sending", ("/mnt/nfs/out",)
    crew.begin()
    crew.feed(40, at_once=40, dead=killed)
    return crew


def settle_sent(crew: Crew, tell: Tell, vers: str, deaths: int = 0) -> None:
    """Each message of each handler that has returned is one entry, and none is there of any other attempt."""
    look = ["sh", "-c", "cd /mnt/export/out && find new cur .later/new -type f | head -n 5"]
    crew.drain()
    eventually(lambda: not crew.bed.server.check(look), "what was sent is handled", 120)
    figures = settle_accounts(crew, deaths=deaths)
    entries = Counter((key, number) for _, key, number in set(map(tuple, crew.rows("sent.*"))))
    left = crew.bed.server.check(["sh", "-c", "find /mnt/export/out/.maildefer/outbox -type f"]).split()
    tell(vers, figures, f"{len(left)} drafts left by the dead")
    assert entries == Counter({(key, str(n)): 1 for key in crew.accepted() for n in range(MESSAGES)})
    assert len(left) <= MESSAGES * deaths
    assert figures.fences == 0


@on("4.2", "3")
def test_workers_are_killed_after_they_have_sent_and_the_server_crashes_twice(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    """While it is away all workers of a client are killed; what they have asked for may be done after that."""
    crew = begin(vers, enlist, KILLED)
    deaths = crew.crash_server(10, 40, workers_too=True)
    settle_sent(crew, tell, vers, KILLED * len(crew.bed.clients) + deaths)


@on("4.2", "3")
@pytest.mark.parametrize("call", [COMMIT, PUBLISH], ids=["commit", "publish"])
def test_a_commit_or_a_publication_whose_reply_is_lost_for_good(
    call: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell
) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = begin(vers, enlist)
    crew.bed.lose_reply_for_good("c0", call)
    settle_sent(crew, tell, vers)
