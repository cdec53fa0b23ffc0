"""Why an entry was buried."""

from __future__ import annotations

import errno
import os

import pytest

from maildefer.maildir import reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from tests.support.queues import LABEL, START, World

DEAD = EntryName(key="1.x", attempts=3, crashes=1, returns=7)


def write(layout: Layout, world: World, reason: str = "no route", **facts: object) -> None:
    reasons.write_reason(layout, DEAD, reason, facts, host=LABEL, system=world.system)


def test_a_reason_tells_what_when_where_and_after_how_many_attempts(layout: Layout, world: World) -> None:
    write(layout, world, error="KeyError: 'x'", handler="post")
    assert reasons.read_reason(layout, DEAD) == {
        "reason": "no route",
        "key": "1.x",
        "attempts": 3,
        "failures": 0,
        "crashes": 1,
        "host": LABEL,
        "time": START,
        "error": "KeyError: 'x'",
        "handler": "post",
    }


def test_it_is_named_for_key_and_generation(layout: Layout, world: World) -> None:
    write(layout, world)
    assert os.listdir(layout.reasons) == ["1.x,n=7.json"]
    assert os.listdir(layout.tmp) == []


@pytest.mark.parametrize("text", ["x" * 1_000_000, "é" * 100_000, "\U0001f600" * 50_000, "\udcff" * 50_000])
def test_texts_without_end_are_cut_so_that_they_can_be_read_again(
    layout: Layout, world: World, text: str
) -> None:
    write(layout, world, traceback=text, error=text, reason_of_all=text)
    found = reasons.read_reason(layout, DEAD)
    assert found["reason"] == "no route"
    assert text.endswith(str(found["traceback"]))
    assert len(str(found["traceback"])) > 500


def test_any_fact_can_be_written(layout: Layout, world: World) -> None:
    write(layout, world, error="caf\udce9", detail=ValueError("x"), nothing=None)
    found = reasons.read_reason(layout, DEAD)
    assert (found["error"], found["detail"], found["nothing"]) == ("caf\udce9", "x", None)


def test_a_missing_folder_is_made_again(layout: Layout, world: World) -> None:
    os.rmdir(layout.reasons)
    write(layout, world)
    assert reasons.read_reason(layout, DEAD)["reason"] == "no route"


@pytest.mark.parametrize("what", ["open", "write", "fsync", "rename"])
def test_a_reason_that_cannot_be_written_raises_and_leaves_no_draft(
    layout: Layout, world: World, what: str
) -> None:
    world.refuse(what, errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        write(layout, world)
    assert os.listdir(layout.tmp) == os.listdir(layout.reasons) == []


@pytest.mark.parametrize("text", ["", "{", "\0", "[" * 60_000])
def test_a_damaged_reason_reads_as_unknown(layout: Layout, text: str) -> None:
    with open(reasons.reason_path(layout, DEAD), "w", encoding="utf-8") as file:
        file.write(text)
    assert "damaged" in str(reasons.read_reason(layout, DEAD)["reason"])


def test_a_missing_reason_reads_as_unknown(layout: Layout) -> None:
    assert reasons.read_reason(layout, DEAD) == {
        "reason": "unknown: its reason file is missing or damaged",
        "key": "1.x",
    }


def test_a_reason_that_is_no_record_is_its_text(layout: Layout) -> None:
    with open(reasons.reason_path(layout, DEAD), "w", encoding="utf-8") as file:
        file.write('"because"')
    assert reasons.read_reason(layout, DEAD) == {"reason": "because", "key": "1.x"}
