"""What handlers say, by whatever way, is in the pool's log with its message; also of long and of dying ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually

pytestmark = [pytest.mark.lifecycle]


def said(pool: Pool, key: str) -> list[str]:
    """By the handler of that message."""
    lines: list[dict[str, Any]] = [
        *pool.events("handler.printed", key=key),
        *pool.events("handler.logged", key=key),
    ]
    return [str(line.get("text") or line.get("message")) for line in lines]


ALL = ["printed ", "written", "by a child", "logged"]


def test_lines_of_two_messages_can_be_told_apart(project: Project, start: Start) -> None:
    pool = start(workers=2)
    keys = project.push("print", 4)
    eventually(project.is_empty, "all are handled")
    pool.stop()
    assert [sorted(said(pool, key)) for key in keys] == [sorted(ALL)] * 4
    for line in pool.events("handler.printed"):
        assert (line["queue"], line["handler"], line["attempt"], line["recipient"]) == (
            "run/queue",
            "workers.front.HANDLE",
            1,
            "print@test",
        )


def test_what_a_long_handler_has_written_is_told_while_it_is_at_it(project: Project, start: Start) -> None:
    pool = start(workers=1)
    [key] = project.push("printwait")
    eventually(lambda: "by a child" in said(pool, key), "told")
    assert project.notes("end") == []
    project.go()


def test_the_last_words_of_a_worker_are_told_with_the_message_that_it_held(
    project: Project, start: Start
) -> None:
    pool = start(workers=1, settings={"max_crashes": 1})
    [key] = project.push("printdie")
    pool.await_event("worker.died")
    assert [line for line in said(pool, key) if line != "logged"] == ["printed die", "written", "by a child"]


def test_an_exception_is_a_warning_and_the_last_time_an_error(project: Project, start: Start) -> None:
    pool = start(workers=1, settings={"max_attempts": 1})
    [key] = project.push("fail")
    event = pool.await_event("handler.failed", key=key)
    assert (event["level"], event["error"], event["attempt"]) == ("error", "RuntimeError: it broke", 1)
    assert "in _fail" in event["traceback"]
