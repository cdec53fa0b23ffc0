"""Limits over real NFS: never more at a time, or in a period, while the server crashes or a reply is lost."""

from __future__ import annotations

import re

from tests.mount.bed import EXPORT
from tests.mount.cases import on
from tests.mount.conftest import Enlist, Tell
from tests.mount.harness import Crew
from tests.mount.test_pools import settle_accounts

COUNT, STARTS, PERIOD_SECONDS = 2, 30, 5  # as in workers/limited.py
_LATE_SECONDS = 0.5  # from a start to the note of its time, which waits for the server
_SLOT = rb"\d{1,4},d=\d{13},u=[0-9a-f]{16}"
# Both names in one frame: only the RENAME call has them.
START = re.compile(_SLOT + rb".{0,400}" + _SLOT, re.DOTALL)


def judge(crew: Crew, *, delayed: int = 0) -> str:
    """By what all handlers noted; returns how many ran at a time, and started in a period, at most.

    `delayed`: so many may have started in the period before, and noted it only when the server was back.
    """
    lines = crew.rows("limited.*")
    times, at_once = sorted(float(began) for began, _ in lines), max(int(count) for _, count in lines)
    window = max(
        sum(1 for began in times if start <= began < start + PERIOD_SECONDS - _LATE_SECONDS)
        for start in times
    )
    assert at_once <= COUNT
    assert window <= STARTS + delayed
    held = crew.bed.server.check(["sh", "-c", f"find {EXPORT}/queue/.maildefer/limits/held -type f"])
    assert held == ""
    return f"at most {at_once} at a time, {window} in {PERIOD_SECONDS} s"


@on("4.2", "3", chosen=("4.2",))
def test_the_server_crashes_twice_and_no_more_run_than_the_limits(
    vers: str, enlist: Enlist, tell: Tell
) -> None:
    crew = enlist(vers)
    crew.settings = "conf.limited"
    crew.begin()
    crew.feed(40, at_once=20)
    crew.crash_server(20, 60)
    figures = settle_accounts(crew)
    tell(vers, figures, judge(crew, delayed=COUNT))
    assert figures.fences == 0


@on("4.2", "3", chosen=("3",))
def test_a_start_whose_reply_is_lost_for_good(vers: str, enlist: Enlist, tell: Tell) -> None:
    """The server has done it, its reply cache is gone, and the client asks again."""
    crew = enlist(vers)
    crew.settings = "conf.limited"
    crew.begin()
    crew.feed(40, at_once=20)
    crew.await_handled(10)
    crew.bed.lose_reply_for_good("c0", START)
    figures = settle_accounts(crew)
    tell(vers, figures, judge(crew))
    assert (figures.extra, figures.takeovers, figures.fences) == (0, 0, 0)
