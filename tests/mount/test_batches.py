"""An exclusive batch over real NFS: one call at a time, each message once, whatever crashes or is lost."""

from __future__ import annotations

import re

import pytest

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew, Figures
from tests.mount.test_pools import _KEY, _LENGTH, settle_accounts

# Both names in one frame: only the RENAME call has them.
TAKE_OVER = re.compile(_LENGTH + _KEY + rb",a=1:1,c0-.{0,400}\1,a=1:1,c0-", re.DOTALL)
TOKEN = re.compile(rb"\x00\x00\x00[\x04-\x20]([0-9a-f]{4}(?:,n=\d+)?).{0,400}\1:1,c0-", re.DOTALL)


def begin(vers: str, enlist: Enlist) -> Crew:
    crew = enlist(vers)
    crew.settings = "conf.gathering"
    crew.begin()
    crew.feed(60, at_once=30)
    return crew


def settle_calls(crew: Crew, tell: Tell, vers: str) -> Figures:
    """No two calls ran at a time, and no token stays taken."""
    figures = settle_accounts(crew)
    calls = crew.rows("calls.*")
    tell(vers, figures, f"{len(calls)} calls")
    assert {at_once for _, at_once, *_ in calls} == {"1"}
    assert len(calls) < figures.accepted / 2, "they are batches"
    held = crew.bed.server.check(["sh", "-c", f"find {EXPORT}/queue/.maildefer/tokens/held -type f"])
    assert held == ""
    return figures


@on("4.2", "3")
def test_the_server_crashes_twice_and_no_calls_overlap(vers: str, enlist: Enlist, tell: Tell) -> None:
    crew = begin(vers, enlist)
    crew.crash_server(20, 80)
    assert settle_calls(crew, tell, vers).fences == 0


@on("4.2", "3")
@pytest.mark.parametrize("call", [TAKE_OVER, TOKEN], ids=["claim", "token"])
def test_a_claim_taken_over_or_a_calls_token_whose_reply_is_lost_for_good(
    call: re.Pattern[bytes], vers: str, enlist: Enlist, tell: Tell
) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = begin(vers, enlist)
    crew.bed.lose_reply_for_good("c0", call)
    figures = settle_calls(crew, tell, vers)
    assert (figures.extra, figures.fences) == (0, 0)
