"""What the journals tell of one message: in order, with the host and the reason, also of what is gone long ago."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import maildefer.message.origin  # noqa: F401  # notes where what is pushed is from
from maildefer.control import history
from maildefer.control.audit import audit
from maildefer.control.history import HistoryEvent, Sought, find_keys, history_of, keys_that_begin
from maildefer.host.identity import HOST_ID_VARIABLE, this_host
from maildefer.maildir import journal
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.idempotency.once import OncePusher
from maildefer.maildir.journal_file import former_host_name, host_name
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.operator import entries, record_keeping, schedule
from maildefer.maildir.push import Pusher
from maildefer.message.envelope import block
from tests.control.test_audit import claim, push
from tests.support.queues import DATA, LABEL


def note(queue: Layout, key: str, **facts: str) -> None:
    pen = journal.journal_of(queue)
    assert pen is not None
    pen.record_note(key, facts)


def told(*queues: Layout, key: str) -> list[str]:
    return [one.event for one in history_of(queues, key)]


def facts(queue: Layout, key: str) -> dict[str, str]:
    return {name: value for one in history_of([queue], key) for name, value in one.facts.items()}


def test_a_messages_way_is_told_in_order(queue: Layout) -> None:
    key = push(queue)
    note(queue, key, client="mx.a.example", **{"from": "<a@a.example>", "to": "b@b.example"})
    held = claim(queue, key)
    note(queue, key, outcome="deferred", handler="workers.x.START", reason="greylisted, again")
    held.defer(0.0)
    (found,) = entries.list_entries(queue, "deferred")
    entries.release_deferred(queue, found)
    (name,) = os.listdir(queue.new)
    claim(queue, name).ack()
    first, second, *later = told(queue, key=key)
    assert {first, second} == {"accepted", "received"}
    assert [re.sub(r"until .*", "until …", one) for one in later] == [
        "tried: deferred",
        "deferred until …",
        "to be tried",
        "ended",
    ]
    assert facts(queue, key)["reason"] == "greylisted, again"
    assert facts(queue, key)["client"] == "mx.a.example"
    assert {one.host for one in history_of([queue], key)} == {host_name()}


def test_what_is_pushed_in_parts_or_under_a_unique_key_is_found_by_its_recipient(queue: Layout) -> None:
    pusher = Pusher(queue, host=LABEL)

    def in_parts(stem: str) -> Draft:
        draft = pusher.draft(stem)
        envelope = block(stem, "ann@a.example", "big@b.example", host="h", when=time.time(), via="push")
        draft.append_all([envelope[:7], envelope[7:], b"Message-ID: <big@a>\n", b"x: y\n" * 100_000])
        return draft

    def together(stem: str) -> list[bytes]:
        return [block(stem, "ann@a.example", "once@b.example", host="h", when=time.time(), via="push"), DATA]

    big, once = pusher.push(in_parts), Markers(queue, host=LABEL).push("order-17", together).key
    assert find_keys([queue], Sought(sender=re.compile("ann@a.example")), 9) == [big, once]
    assert facts(queue, big)["id"] == "<big@a>"
    assert facts(queue, once)["to"] == "once@b.example"
    assert find_keys([queue], Sought(message_id="big@a"), 9) == [big]


def test_a_request_that_comes_again_is_told_of(queue: Layout) -> None:
    pusher = Pusher(queue, host=LABEL)

    def write() -> list[Draft]:
        draft = pusher.draft()
        draft.append(block("x", "ann@a.example", "web@b.example", host="h", when=time.time(), via="http"))
        draft.sync()
        return [draft]

    for _ in range(2):
        ((_, key),) = OncePusher(pusher).push("3f" * 16, "0" * 32, write).entries
    assert find_keys([queue], Sought(recipient=re.compile("web@b.example")), 9) == [key]
    assert told(queue, key=key) == ["received", "accepted", "a second push was told of it", "now waiting"]


def test_the_last_reason_is_sought_at_the_end_of_a_journal_and_no_further(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, other = push(queue), push(queue), push(queue)
    note(queue, old, outcome="deferred", reason="long ago")
    note(queue, other, outcome="deferred", reason="nobody asks")
    for number in range(60):
        note(queue, new, outcome="deferred", reason=f"reason {number}")
    journal.close_journals()
    assert list(history.last_reasons(queue, {new, old}).items()) == [(old, "long ago"), (new, "reason 59")]
    monkeypatch.setattr(history, "_NEWEST_BYTES", 4000)
    assert history.last_reasons(queue, {old, new}) == {new: "reason 59"}
    assert history.last_reasons(queue, set()) == {}


def test_of_reasons_of_one_millisecond_the_one_that_was_recorded_last_counts(queue: Layout) -> None:
    records = [f"\n978307200.000 note 17.a outcome=deferred,reason={reason} ." for reason in ("b", "c", "a")]
    Path(queue.journal, f"2001-01-01.{host_name()}.b.0.settled").write_text("".join(records))
    assert history.last_reasons(queue, {"17.a"}) == {"17.a": "a"}


def test_hosts_whose_names_begin_alike_are_told_apart_as_their_leases_are(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(HOST_ID_VARIABLE, raising=False)
    labels = set()
    for node in ("mx.a.example", "mx.b.example", f"{'shop-pool-production-7d9f8c6b5-' * 2}a"):
        monkeypatch.setattr(os, "uname", lambda node=node: SimpleNamespace(nodename=node))
        journal.close_journals()
        [accepted, _] = history_of([queue], push(queue))
        labels.add(accepted.host)
        assert accepted.host == this_host().label
    assert len(labels) == 3
    journal.close_journals()


def test_files_that_an_earlier_version_has_named_are_read_on(queue: Layout) -> None:
    Path(queue.journal, f"2001-01-01.{former_host_name()}.b.0.settled").write_text("\n978307200.0 ack 17.a .")
    [ended] = history_of([queue], "17.a")
    assert (ended.event, ended.host) == ("ended", former_host_name())


def test_what_is_buried_requeued_and_held_is_told_and_where_it_is_now(queue: Layout) -> None:
    key = push(queue)
    claim(queue, key).bury("no route")
    assert history_of([queue], key)[-1].event == "now dead"
    assert facts(queue, key)["reason"] == "no route"
    (found,) = entries.list_entries(queue, "dead")
    entries.requeue(queue, found)
    (found,) = entries.list_entries(queue, "waiting")
    schedule.hold(queue, found, host=LABEL)
    assert told(queue, key=key) == ["accepted", "buried", "requeued", "put on hold", "now deferred"]


def test_who_holds_it_is_told(queue: Layout) -> None:
    key = push(queue)
    held = claim(queue, key)
    assert told(queue, key=key)[-1] == "now claimed"
    assert facts(queue, key)["worker"].startswith(f"{LABEL}-17-")
    held.ack()


def test_it_is_followed_into_the_queue_to_which_it_was_handed(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    key = push(queue)
    claim(queue, key).handoff(other)
    (name,) = os.listdir(other.new)
    claim(other, name).ack()
    assert told(queue, other, key=key) == ["accepted", "handed to other", "ended"]
    assert told(queue, key=key) == ["accepted", "handed to other"]


def test_the_end_of_a_first_attempt_says_who_has_handled_it(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    key, second = push(queue), push(queue)
    claim(queue, key).ack(handler="workers.x.START,workers.y.END")
    claim(queue, second).handoff(other)
    (name,) = os.listdir(other.new)
    claim(other, name).ack(handler="workers.y.END")
    *_, ended = history_of([queue], key)
    assert (ended.event, ended.facts["handler"]) == ("ended", "workers.x.START,workers.y.END")
    assert int(ended.facts["ms"]) >= 0
    *_, ended = history_of([queue, other], second)
    assert ended.facts.keys() == {"handler", "ms"}
    report = audit([queue.path, other.path], timeout_seconds=0)
    assert (report.accepted, report.ended, report.suspects, report.handed) == (2, 2, [], 0)


def test_messages_are_found_by_what_is_known_of_them(queue: Layout) -> None:
    keys = [push(queue) for _ in range(3)]
    note(queue, keys[0], **{"from": "<ann@a.example>", "to": "bob@b.example", "id": "<1@a.example>"})
    note(queue, keys[1], **{"from": "<>", "to": "bob@b.example", "id": "<2@a.example>"})
    note(queue, keys[1], outcome="acked", handler="x")
    assert find_keys([queue], Sought(message_id="1@a.example"), 9) == [keys[0]]
    assert find_keys([queue], Sought(message_id="<2@a.example>"), 9) == [keys[1]]
    assert find_keys([queue], Sought(recipient=re.compile("bob@b.example")), 9) == [keys[0], keys[1]]
    assert find_keys([queue], Sought(recipient=re.compile("bob@b.example")), 1) == [keys[1]]
    assert find_keys([queue], Sought(sender=re.compile("")), 9) == [keys[1]]
    assert find_keys([queue], Sought(sender=re.compile("bob@.*")), 9) == []
    assert find_keys([queue], Sought(since=time.time() + 60), 9) == []


def test_events_are_in_the_order_of_their_times_and_those_of_one_moment_in_that_of_causes(
    queue: Layout,
) -> None:
    day = Path(queue.journal, "2001-01-01.h.b.0.pushed")
    day.write_text("\n978307201.500 push 17.a .\n978307201.500 note 17.a from=%3C%3E .")
    Path(queue.journal, "2001-01-01.i.b.0.settled").write_text(
        "\n978307201.400 note 17.a handler=x,outcome=handedoff .\n978307201.500 ack 17.a ."
    )
    found = history_of([queue], "17.a")
    assert [one.event for one in found] == ["tried: handed_off", "received", "accepted", "ended"]
    assert [one.when for one in found] == sorted(one.when for one in found)


def test_a_key_may_be_cut_short_and_one_that_never_was_tried_is_found(queue: Layout) -> None:
    key = push(queue)
    Path(queue.new, "17.another").write_bytes(DATA)
    assert keys_that_begin([queue], key, 9) == [key]
    assert keys_that_begin([queue], key[:12], 9) == [key]
    assert keys_that_begin([queue], "17.a", 9) == ["17.another"]
    assert keys_that_begin([queue], "nothing", 9) == []


def test_facts_of_other_peoples_making_forge_no_record_and_no_fact(queue: Layout) -> None:
    key = push(queue)
    evil = "a, b=c .\n9.0 ack x .\x1b[31m é\0 %2C" + "z" * 10_000
    note(queue, key, reason=evil, error="")
    (event,) = [one for one in history_of([queue], key) if one.facts.get("reason")]
    assert event.facts["reason"] == evil[:400].replace("\0", " ")
    assert set(event.facts) == {"reason"}
    assert history_of([queue], "x") == []


def test_files_of_days_before_and_what_is_torn_are_passed_over(queue: Layout) -> None:
    key = push(queue)
    Path(queue.journal, "2001-01-01.h.b.0.settled").write_text(f"\n978307200.0 ack {key} .")
    Path(queue.journal, f"{time.strftime('%Y-%m-%d')}.h.b.0.settled").write_text(
        f"\n978307200.0 note {key} id"
    )
    os.mkfifo(f"{queue.journal}/{time.strftime('%Y-%m-%d')}.i.b.0.settled")
    assert told(queue, key=key)[:2] == ["ended", "accepted"]
    assert find_keys([queue], Sought(message_id="x", since=time.time()), 9) == []


def test_a_queue_without_a_journal_tells_where_the_entry_is(queue: Layout) -> None:
    record_keeping.end_journal(queue)
    key = Pusher(queue, host=LABEL).push(lambda stem: [DATA])
    (event,) = history_of([queue], key)
    assert isinstance(event, HistoryEvent)
    assert event.event == "now waiting"
    assert history.keys_that_begin([queue], key, 9) == [key]
