"""What the processes of a pool count: by names, over deaths, and with a limit to how many names there are."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from maildefer.handling.outcomes import ACKED, Buried, Deferred, HandedOff, Outcome, Postponed
from maildefer.pool.counts.memory import BOUNDS, CountsMemory, SlotCounts, burial_kind
from maildefer.pool.counts.places import OTHER
from maildefer.pool.counts.record import counts_record

QUEUES = ["run/queue", "run/later"]


def attempts(memory: CountsMemory) -> dict[tuple[str, str], dict[str, Any]]:
    found = counts_record(memory, QUEUES)["attempts"]
    return {(one["queue"], one["handler"]): one for one in found}


def notable(memory: CountsMemory) -> dict[tuple[str, ...], tuple[int, str]]:
    found = counts_record(memory, QUEUES)["notable"]
    names = ("queue", "event", "kind", "handler")
    return {tuple(one.get(name, "") for name in names): (one["count"], one["last"]) for one in found}


def test_a_pool_that_is_not_watched_has_no_counts():
    assert counts_record(None, QUEUES) == {}


def test_attempts_are_counted_by_queue_handler_and_outcome():
    memory = CountsMemory(3)
    slot = memory.own_slot(0)
    front, back = slot.counter(0), slot.counter(1)
    front("workers.a.START", ACKED, "acked", 0.5, "k")
    front("workers.a.START", ACKED, "acked", 1.5, "k")
    front("workers.a.START", Deferred("later"), "deferred", 0.0, "k")
    front("workers.a.START", Deferred("x", error="ValueError: x"), "deferred", 0.0, "k")
    front("workers.b.START", HandedOff("m", "f"), "handed_off", 0.0, "k")
    back("workers.a.START", Postponed(1.0, "token"), "postponed", 0.0, "k")
    found = attempts(memory)
    assert found["run/queue", "workers.a.START"]["outcomes"] == {
        "acked": 2, "deferred": 1, "failed": 1, "buried": 0, "handed_off": 0, "postponed": 0,
    }  # fmt: skip
    assert found["run/queue", "workers.a.START"]["seconds"] == 2.0
    assert found["run/queue", "workers.b.START"]["outcomes"]["handed_off"] == 1
    assert found["run/later", "workers.a.START"]["outcomes"]["postponed"] == 1


@pytest.mark.parametrize("bound", range(len(BOUNDS)))
def test_a_duration_is_in_the_first_bucket_that_is_not_below_it(bound: int):
    memory = CountsMemory(1)
    count = memory.own_slot(0).counter(0)
    count("h", ACKED, "acked", BOUNDS[bound] - 2e-6, "k")
    count("h", ACKED, "acked", BOUNDS[bound] + 2e-6, "k")
    buckets = attempts(memory)["run/queue", "h"]["buckets"]
    assert [number for number, held in enumerate(buckets) if held] == [bound, bound + 1]


def test_durations_beyond_all_bounds_have_buckets_too():
    memory = CountsMemory(1)
    count = memory.own_slot(0).counter(0)
    for seconds in (0.0, 1e-9, 1e6):
        count("h", ACKED, "acked", seconds, "k")
    buckets = attempts(memory)["run/queue", "h"]["buckets"]
    assert (buckets[0], buckets[-1], sum(buckets)) == (2, 1, 3)


def test_the_next_process_of_a_slot_goes_on_where_the_dead_one_was():
    memory = CountsMemory(2)
    for _ in range(3):
        if (pid := os.fork()) == 0:
            memory.own_slot(1).counter(0)("h", ACKED, "acked", 1.0, "k")
            memory.own_slot(1).note(0, "buried", "x\nh", "last")
            os._exit(0)
        os.waitpid(pid, 0)
    assert attempts(memory)["run/queue", "h"]["outcomes"]["acked"] == 3
    assert len(SlotCounts(memory.words, 0).handlers.read()) == 0
    assert notable(memory)["run/queue", "buried", "x", "h"] == (3, "last")


def test_the_processes_of_all_slots_are_added_up():
    memory = CountsMemory(4)
    for slot in range(4):
        memory.own_slot(slot).counter(0)("h", ACKED, "acked", 1.0, "k")
    assert attempts(memory)["run/queue", "h"]["seconds"] == 4.0


def test_names_beyond_the_limit_share_one_place():
    memory = CountsMemory(1)
    slot = memory.own_slot(0)
    counters = slot.counter(0), slot.counter(1)
    for number in range(1000):
        counters[number % 2](f"handler{number}", ACKED, "acked", 0.0, "k")
    found = attempts(memory)
    assert len(found) == 64
    assert found["", OTHER]["outcomes"]["acked"] == 1000 - 63
    assert sum(one["outcomes"]["acked"] for one in found.values()) == 1000


@pytest.mark.parametrize("name", ["x" * 5000, "é" * 500, "\udcff", "a\nb\nc", "", "\0"])
def test_a_name_may_be_anything(name: str):
    memory = CountsMemory(1)
    count = memory.own_slot(0).counter(0)
    for _ in range(2):
        count(name, ACKED, "acked", 0.0, "k")
    [(_, facts)] = attempts(memory).items()
    assert facts["outcomes"]["acked"] == 2


def test_deliveries_are_counted_by_destination_over_all_workers():
    memory = CountsMemory(2)
    memory.own_slot(0).count_delivery("b.example", "sent")
    memory.own_slot(1).count_delivery("b.example", "sent")
    memory.own_slot(1).count_delivery("b.example", "refused")
    memory.own_slot(1).count_delivery("c.example", "expired")
    found = counts_record(memory, QUEUES)["deliveries"]
    assert {one["destination"]: one["outcomes"] for one in found} == {
        "b.example": {"sent": 2, "deferred": 0, "refused": 1, "expired": 0},
        "c.example": {"sent": 0, "deferred": 0, "refused": 0, "expired": 1},
    }


def test_why_mail_was_put_off_last_is_kept_by_destination(monkeypatch: pytest.MonkeyPatch):
    memory = CountsMemory(2, counts_attempts=False)
    for slot, (at, words) in enumerate(((5, "450 greylisted\n\x00"), (4, "452 " + "x" * 1000))):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        memory.own_slot(slot).count_delivery("b.example", "deferred", words)
        memory.own_slot(slot).count_delivery("b.example", "sent")
    memory.own_slot(1).count_delivery("c.example", "deferred", "452 " + "\u00fc" * 1000)
    b, c = counts_record(memory, QUEUES)["deliveries"]
    assert (b["deferred_at"], b["last_words"]) == (5, "450 greylisted\n\x00")
    assert (c["deferred_at"], c["last_words"]) == (4, "452 " + "\u00fc" * 158)


def test_of_very_many_destinations_those_that_came_first_have_names():
    memory = CountsMemory(1)
    for number in range(1000):
        memory.own_slot(0).count_delivery(f"{number}.example", "deferred")
    found = {
        one["destination"]: one["outcomes"]["deferred"] for one in counts_record(memory, QUEUES)["deliveries"]
    }
    assert (len(found), found["30.example"], found[OTHER], sum(found.values())) == (32, 1, 969, 1000)


def test_a_burial_is_notable_with_its_kind_its_key_and_its_reason():
    memory = CountsMemory(1)
    count = memory.own_slot(0).counter(0)
    count("h", Buried("no route for x@y"), "buried", 0.0, "k1")
    count("h", Buried("go away"), "buried", 0.0, "k2")
    count("h", Deferred("boom", error="ValueError: boom"), "buried", 0.0, "k3")
    count("h", Deferred("worse", error="ValueError: worse"), "buried", 0.0, "k4")
    assert notable(memory) == {
        ("run/queue", "buried", "no route", "h"): (1, "k1\nno route for x@y"),
        ("run/queue", "buried", "rejected", "h"): (1, "k2\ngo away"),
        ("run/queue", "buried", "ValueError", "h"): (2, "k4\nworse"),
    }


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Buried("too large", error="EntryTooLarge"), "EntryTooLarge"),
        (Deferred("4 days"), "deferred too long"),
    ],
)
def test_a_kind_is_a_word_of_few(outcome: Outcome, kind: str):
    assert isinstance(outcome, Buried | Deferred)
    assert burial_kind(outcome) == kind


def test_whatever_a_broken_process_has_written_is_read():
    memory = CountsMemory(2)
    memory.own_slot(0).counter(0)("h", ACKED, "acked", 0.0, "k")
    for word in range(0, len(memory.words), 7):
        memory.words[word] = (1 << 64) - 1 - word
    assert len(counts_record(memory, QUEUES)["attempts"]) > 2
