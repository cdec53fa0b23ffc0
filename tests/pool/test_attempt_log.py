from __future__ import annotations

import re
import time
from datetime import datetime

import pytest

from maildefer import events
from maildefer.maildir.system import boottime
from maildefer.pool.attempt_log import FLUSH_SECONDS, AttemptLog


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    taken: list[str] = []
    monkeypatch.setattr(events, "write", taken.append)
    return taken


def test_lines_have_the_time_of_their_attempts_end_and_are_written_together(written: list[str]) -> None:
    waits: list[float] = []
    log, now = AttemptLog(waits.append), boottime()
    log.add("run/queue", "first", "m.START", "acked", 1, 0.001, now - 100.0)
    log.add("run/queue", "second", "", "buried", 2, 0.5, now - 100.0 + FLUSH_SECONDS / 2, reason="no route")
    assert (waits, written) == ([now - 100.0], [])
    log.add("run/queue", "third", "m.START", "acked", 1, 0.001, now)
    [text] = written
    assert waits == [now - 100.0, 0.0]
    ends = [
        datetime.fromisoformat(re.findall(r"ts=(\S+)", line)[0]).timestamp() for line in text.splitlines()
    ]
    assert ends == pytest.approx([time.time() - ago for ago in (100.0, 99.95, 0.0)], abs=5.0)
    assert [ends[1] - ends[0], ends[2] - ends[0]] == pytest.approx([0.05, 100.0], abs=0.002)
    assert re.findall(r"key=(\S+) handler=(\S+)", text) == [
        ("first", "m.START"),
        ("second", "-"),
        ("third", "m.START"),
    ]
    assert text.count("reason=") == 1


def test_a_flush_by_a_signal_handler_between_two_lines_loses_and_doubles_none(written: list[str]) -> None:
    log, now = AttemptLog(), boottime()
    for number in range(3):
        log.add("run/queue", f"k{number}", "m.START", "acked", 1, 0.001, now)
        log.flush()
    log.flush()
    assert [re.findall(r"key=(\S+)", text) for text in written] == [["k0"], ["k1"], ["k2"]]
