"""What a keeper took back is told, whatever its scan comes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from maildefer import events
from maildefer.pool.keeper.reclaim_log import log_fence, logged_reclaims
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_views import QueueRecordView


@pytest.fixture
def context() -> Any:
    notes: list[tuple[Any, ...]] = []
    queues = [SimpleNamespace(name="run/queue")]
    return SimpleNamespace(
        board=Scoreboard(1, 2), queues=queues, note=lambda *note: notes.append(note), notes=notes
    )


def test_each_entry_that_was_taken_back_is_told_also_when_the_scan_ends_in_a_fault(
    monkeypatch: pytest.MonkeyPatch, context: Any
) -> None:
    lines: list[tuple[Any, ...]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: lines.append((event, *facts.values())))

    def scan() -> None:
        with logged_reclaims(context, 0) as taken:
            taken.reclaimed.append("1.a")
            taken.released.append("2.b")
            taken.buried["3.c"] = "its worker died"
            taken.returned.append("4.d")
            raise OSError("half way")

    with pytest.raises(OSError, match="half way"):
        scan()
    assert lines == [
        ("claim.reclaimed", "run/queue", "1.a"),
        ("claim.released", "run/queue", "2.b"),
        ("entry.buried", "run/queue", "3.c", "its worker died"),
        ("entry.returned", "run/queue", "4.d"),
    ]
    assert QueueRecordView(context.board, 0).reclaims == 2
    assert context.notes == [(0, "buried", "crashed\n", "3.c\nits worker died")]


def test_a_fence_is_told_and_counted_by_its_host(context: Any) -> None:
    log_fence(context, 0, "mail-2-ab12cd-4711-0123456789ab")
    assert QueueRecordView(context.board, 0).fences == 1
    assert context.notes == [(0, "fenced", "mail-2-ab12cd", "mail-2-ab12cd-4711-0123456789ab")]
