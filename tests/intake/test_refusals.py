"""How refusals are counted: by kinds, of which there is a limit, since a policy may write any."""

from __future__ import annotations

from maildefer.intake import replies
from maildefer.intake.refusals import RefusalCounts
from maildefer.intake.replies import Reply


def test_only_what_refuses_is_counted():
    refusals = RefusalCounts()
    refusals.count_replies([replies.SENDER_OK, replies.NO_ROUTE, replies.FULL, replies.NO_ROUTE, replies.BYE])
    assert refusals.counts == {"5.1.1": 2, "4.3.1": 1}


def test_a_reply_without_a_status_is_counted_by_its_code():
    refusals = RefusalCounts()
    refusals.count_replies([Reply(550, "", "no")])
    assert refusals.counts == {"550": 1}


def test_kinds_beyond_a_limit_are_counted_together():
    refusals = RefusalCounts()
    refusals.count_replies([Reply(550, f"5.{number}.0", "no") for number in range(100)])
    assert len(refusals.counts) == 41
    assert refusals.counts["other"] == 60
