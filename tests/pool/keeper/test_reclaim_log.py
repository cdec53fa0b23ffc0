"""What a keeper took back is told, whatever its scan comes to."""

from __future__ import annotations

from typing import Any

import pytest

from maildefer import events
from maildefer.pool.keeper.reclaim_log import logged_reclaims


def test_each_entry_that_was_taken_back_is_told_also_when_the_scan_ends_in_a_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines: list[tuple[Any, ...]] = []
    monkeypatch.setattr(events, "emit", lambda event, **facts: lines.append((event, *facts.values())))

    def scan() -> None:
        with logged_reclaims("run/queue") as taken:
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
