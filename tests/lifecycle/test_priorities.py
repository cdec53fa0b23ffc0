"""Priorities within a queue, in running pools: the higher first, and none starves."""

from __future__ import annotations

import pytest

from maildefer.maildir import scan
from maildefer.maildir.drafts.entry import Planned
from maildefer.maildir.push import Pusher
from maildefer.message.envelope import block
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import BODY, Project, eventually

pytestmark = pytest.mark.lifecycle


def push(project: Project, what: str, count: int, priority: str) -> list[str]:
    pusher = Pusher(project.queue, host="test")
    planned = Planned(
        compose=lambda stem: [
            block(stem, "ann@example.org", f"{what}@test", host="test", when=0, via="push"),
            BODY,
        ],
        priority=priority,
    )
    return [pusher.push(planned) for _ in range(count)]


def order(project: Project) -> list[str]:
    return [note.key for note in project.notes("start")]


def test_a_high_entry_that_comes_last_overtakes_the_backlog(project: Project, start: Start) -> None:
    start(workers=1)
    low = push(project, "wait", 1, "low") + push(project, "sleep0.01", 60, "low")
    eventually(lambda: order(project), "the first is begun")
    normal = push(project, "sleep0.01", 20, "normal")
    [high] = push(project, "sleep0.01", 1, "high")
    project.go()
    eventually(project.is_empty, "all are handled")
    handled = order(project)
    assert sorted(handled) == sorted([*low, *normal, high])
    assert handled.index(high) <= 4, "behind the one in hand, two offers on their way, and at most one turn"
    before_last_normal = handled[: max(map(handled.index, normal))]
    assert sum(key in low for key in before_last_normal) <= 1 + 2 + len(before_last_normal) // 8 + 1


def test_a_low_entry_is_handled_on_two_hosts_while_high_ones_never_end(
    project: Project, start: Start
) -> None:
    for host in ("a", "b"):
        start(host=host, workers=1)
    push(project, "quick", 16, "high")
    eventually(project.is_empty, "both hosts go by priority")
    before = len(order(project))
    low = push(project, "quick", 1, "low")[0]

    def supply() -> bool:
        """As many high ones as wait at any time, until the low one was handled."""
        push(project, "sleep0.02", max(0, 40 - len(project.names("new"))), "high")
        return low in order(project)

    eventually(supply, "the low one is handled")
    waited = order(project).index(low) - before
    assert scan.priority_of(low) == "low"
    assert waited < 200, "of eight that a host offers, one is low, as soon as a listing has shown it"
