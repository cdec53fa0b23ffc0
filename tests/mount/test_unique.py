"""One unique key over real NFS: each push stores its entry or names the one there, whatever replies are lost."""

from __future__ import annotations

import re

import pytest

from tests.mount.cases import EVERY, on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew
from tests.mount.test_pools import _LENGTH, settle_accounts

_KEY = rb"(\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.[a-z0-9-]+,q=[0-9a-f]{16},S=\d+)"
MARKER = re.compile(rb"\.marker-\d+-[0-9a-f]{16}.{0,400}\x00\x00\x00\x10[0-9a-f]{16}", re.DOTALL)
ENTRY = re.compile(_KEY + rb"\.draft.{0,400}" + _LENGTH + rb"\1(?!\.)", re.DOTALL)
END = re.compile(_LENGTH + _KEY + rb",a=1:1,c0-.{0,400}\1\.ended", re.DOTALL)


def push_on_all(crew: Crew, count: int) -> None:
    """Push the same unique key on every client."""
    for guest in crew.bed.clients:
        crew.feeders.append(crew.python(guest, "once.py", str(count)))


def settle_once(crew: Crew, tell: Tell, vers: str, doubts: int = 0) -> None:
    """Each entry that was handled is one that exactly one push has made, and no marker stays."""
    figures = settle_accounts(crew)
    new = [key for keys in crew.rows("new.*") for key in keys]
    handled = {key for key, _ in crew.notes("start")}
    tell(vers, figures, f"{len(new)} were new")
    assert len(new) == len(set(new))
    assert handled == crew.accepted()
    assert len(handled - set(new)) <= doubts, "only where its pusher could not see that its entry had ended"
    assert len(new) > 3, "after the end of one the next is accepted"
    script = ["sh", "-c", "find /mnt/export/queue/.maildefer/unique -type f"]
    assert crew.bed.server.check(script) == ""
    assert figures.fences == 0


@on(*EVERY, chosen=("4.2",))
def test_one_key_pushed_on_three_hosts_while_the_server_crashes(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    crew.begin()
    push_on_all(crew, 100)
    crew.crash_server(5, 15)
    settle_once(crew, tell, vers)


@on(*EVERY)
@pytest.mark.parametrize("call", [MARKER, ENTRY, END], ids=["marker", "entry", "end"])
def test_a_unique_push_or_its_end_whose_reply_is_lost_for_good(
    call: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    crew.begin()
    push_on_all(crew, 150)
    crew.await_handled(3)
    crew.bed.lose_reply_for_good("c0", call)
    settle_once(crew, tell, vers, doubts=call is MARKER)
