"""The audit: what it proves, whom it names, and what it takes for an explanation."""

from __future__ import annotations

import io
import math
import os
import sqlite3
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from maildefer.control import journal_reader
from maildefer.control.audit import AuditReport, audit
from maildefer.control.key_ledger import KeyLedger
from maildefer.errors import JournalMissing, MaildeferError
from maildefer.maildir import durable, journal
from maildefer.maildir.claims import Claim, Claimer
from maildefer.maildir.drafts import synced
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.idempotency.once import OncePusher
from maildefer.maildir.journal_file import former_host_name, host_name
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.markers.markers import Markers
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries, record_keeping, schedule
from maildefer.maildir.push import Planned, Pusher
from maildefer.maildir.system import SYSTEM
from tests.support.queues import DATA, LABEL, FakeSlots

LEASE = f"{LABEL}-17-abcdef012345"
DAY = 86400.0


def push(queue: Layout) -> str:
    return Pusher(queue, host=LABEL).push(lambda stem: [DATA])


def claim(queue: Layout, key: str) -> Claim:
    taken = Claimer(queue, FakeSlots(), lease=LEASE, host=LABEL).claim(key)
    assert taken is not None
    return taken


def audited(*queues: Layout, sleep: Callable[[float], None] = lambda seconds: None) -> AuditReport:
    return audit([queue.path for queue in queues], timeout_seconds=0, system=replace(SYSTEM, sleep=sleep))


def write(queue: Layout, name: str, *records: str) -> None:
    with open(f"{queue.journal}/{name}", "a") as file:
        file.write("".join(f"\n{record} ." for record in records))


def verdicts(report: AuditReport) -> dict[str, str]:
    return {suspect.key: suspect.verdict for suspect in report.suspects}


def test_every_accepted_key_is_proven_wherever_it_is(queue: Layout) -> None:
    push(queue)
    claim(queue, push(queue))
    claim(queue, push(queue)).defer(60)
    claim(queue, push(queue)).bury("no")
    claim(queue, push(queue)).ack()
    claim(queue, push(queue)).ack(keep_seconds=60.0)
    entries.delete(queue, entries.find(queue, push(queue)))
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects) == (7, 3, [])
    assert report.found == {"waiting": 1, "claimed": 1, "deferred": 1, "dead": 1}
    assert report.looks == 1


def test_an_entry_that_is_gone_without_an_end_is_named_with_what_is_known(queue: Layout) -> None:
    gone, moved = push(queue), push(queue)
    os.unlink(f"{queue.new}/{gone}")
    name = claim(queue, moved).defer(60)
    os.unlink(f"{queue.later_new}/{name}")
    report = audited(queue)
    assert verdicts(report) == {gone: "lost", moved: "lost"}
    assert {suspect.last for suspect in report.suspects} == {"accepted", f"moved to .later/new/{name}"}
    assert report.looks >= 3, "it looks again before it accuses"


def test_what_is_gone_during_one_look_is_looked_for_again(queue: Layout) -> None:
    """As an entry that is renamed from one folder to another while they are listed."""
    key = push(queue)
    os.rename(f"{queue.new}/{key}", f"{queue.path}/hidden")
    hidden = Path(queue.path, "hidden")

    def show(seconds: float) -> None:
        if hidden.exists():
            hidden.rename(f"{queue.new}/{key}")

    report = audited(queue, sleep=show)
    assert report.suspects == []
    assert report.looks == 2


def test_an_end_that_is_recorded_after_the_journal_was_read_is_heard_of(queue: Layout) -> None:
    key = push(queue)
    taken = claim(queue, key)
    os.rename(f"{queue.cur}/{taken.name}", f"{queue.path}/hidden")

    def settle(seconds: float) -> None:
        if os.path.exists(f"{queue.path}/hidden"):
            os.rename(f"{queue.path}/hidden", f"{queue.cur}/{taken.name}")
            taken.ack()

    report = audited(queue, sleep=settle)
    assert (report.accepted, report.ended, report.suspects) == (1, 1, [])


def test_an_entry_is_followed_into_the_queue_to_which_it_was_handed(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    there, done = push(queue), push(queue)
    for key in (there, done):
        claim(queue, key).handoff(other)
    claim(other, f"{done},h=1,n=1").ack()
    report = audited(queue)
    assert report.suspects == []
    assert report.queues == [queue.path, other.path]
    assert (report.ended, report.found["waiting"]) == (1, 1)


def test_an_entry_of_a_queue_that_is_named_by_a_link_is_followed(queue: Layout, tmp_path: Path) -> None:
    """As long as the other queue is beside the link, it is that; else the one beside the queue."""
    (links := tmp_path / "links").mkdir()
    other = create_queue(str(tmp_path / "other"))
    key = push(queue)
    claim(queue, key).handoff(other)
    claim(other, f"{key},h=1,n=1").ack()
    (link := links / "first").symlink_to(queue.path)
    report = audit([str(link), queue.path], timeout_seconds=0)
    assert (report.accepted, report.ended, report.suspects) == (1, 1, [])
    (links / "other").symlink_to(other.path)
    assert audit([str(link)], timeout_seconds=0).queues == [str(link), str(links / "other")]


def test_an_entry_is_followed_into_a_queue_to_which_it_was_handed_while_the_audit_looked(
    queue: Layout, tmp_path: Path
) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    handed = claim(queue, push(queue))
    # In no folder while it is looked for.
    os.rename(f"{queue.cur}/{handed.name}", hidden := f"{queue.path}/hidden")

    def meanwhile(seconds: float) -> None:
        if os.path.exists(hidden):
            os.rename(hidden, f"{queue.cur}/{handed.name}")
            handed.handoff(other)
            claim(other, os.listdir(other.new)[0]).ack()

    report = audited(queue, sleep=meanwhile)
    assert (report.accepted, report.ended, report.suspects) == (1, 1, [])
    assert report.queues == [queue.path, other.path]


def test_what_was_handed_to_a_queue_without_a_journal_is_unproven(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    record_keeping.end_journal(other)
    key = push(queue)
    claim(queue, key).handoff(other)
    assert os.listdir(other.new) == [f"{key},h=1,n=1"]
    [suspect] = audited(queue).suspects
    assert suspect.verdict == "unproven"
    assert "keeps no journal" in suspect.why


def test_what_was_handed_to_a_queue_before_its_journal_began_is_unproven(
    queue: Layout, tmp_path: Path
) -> None:
    other = create_queue(str(tmp_path / "other"))
    record_keeping.end_journal(other)
    key = push(queue)
    claim(queue, key).handoff(other)
    claim(other, f"{key},h=1,n=1").ack()
    journal.begin_journal(other)
    record_keeping.expect_records(other, None)
    [suspect] = audited(queue).suspects
    assert suspect.verdict == "unproven"
    assert "whose journal began" in suspect.why


def test_what_was_handed_to_a_queue_since_its_journal_began_is_lost(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    record_keeping.expect_records(other, time.time() - 600)
    key = push(queue)
    claim(queue, key).handoff(other)
    os.unlink(f"{other.new}/{key},h=1,n=1")
    [suspect] = audited(queue).suspects
    assert suspect.verdict == "lost"


def test_entries_of_other_writers_accuse_nobody(queue: Layout) -> None:
    Path(queue.new, "1.somebody").write_bytes(DATA)
    claim(queue, "1.somebody").ack()
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects) == (0, 0, [])


def test_an_end_may_be_recorded_before_its_push(queue: Layout) -> None:
    """A worker is as quick as that, and hosts' clocks differ at midnight."""
    write(queue, "2026-11-23.a.1.settled", "1.0 ack 1.a")
    write(queue, "2026-11-24.b.1.pushed", "2.0 push 1.a")
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects) == (1, 1, [])


def test_a_torn_record_is_passed_over(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.pushed", "1.0 push 1.a")
    write(queue, "2026-11-24.a.1.settled", "1.0 ack 1.")
    with open(f"{queue.journal}/2026-11-24.a.1.settled", "a") as file:
        file.write("\n1.0 ack 1.")
    write(queue, "2026-11-24.a.1.settled", "1.0 ack 1.a")
    report = audited(queue)
    assert (report.torn, report.suspects) == (1, [])


def test_a_record_that_is_being_written_is_read_once_it_is_whole(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.pushed", "1.0 push 1.a")
    path = Path(queue.journal, "2026-11-24.a.1.settled")
    path.write_text("\n1.0 ack 1")

    def finish(seconds: float) -> None:
        path.write_text("\n1.0 ack 1.a .")

    report = audited(queue, sleep=finish)
    assert (report.torn, report.suspects) == (0, [])


def test_a_power_cut_is_told_from_a_loss_by_the_hosts_next_boot(queue: Layout) -> None:
    write(queue, "2026-11-24.a.boot1.pushed", "1000.0 push 1.a", "1001.0 push 2.b")
    write(queue, "2026-11-24.a.boot1.settled", "1002.0 ack 2.b")
    assert verdicts(audited(queue)) == {"1.a": "lost"}
    write(queue, "2026-11-24.a.boot2.pushed", "2000.0 push 3.c")
    report = audited(queue)
    assert verdicts(report) == {"1.a": "unproven", "3.c": "lost"}
    assert "booted again" in report.suspects[0].why


@pytest.mark.parametrize("name", [host_name, former_host_name])
def test_an_earlier_boot_of_this_host_is_one_whatever_version_has_named_it(
    queue: Layout, name: Callable[[], str]
) -> None:
    write(queue, f"2026-11-24.{name()}.boot1.pushed", "1000.0 push 1.a", "1001.0 push 2.b")
    [suspect, _] = audited(queue).suspects
    assert (suspect.verdict, "booted again since" in suspect.why) == ("unproven", True)


def test_a_push_whose_record_a_power_cut_has_taken_is_told_from_one_without_a_right(queue: Layout) -> None:
    began = int(time.time()) - 1000
    missing = [(100, "a"), (300, "a"), (700, "a"), (300, "b")]
    keys = [f"{began + when}.M000000P1Q1R0123456789abcdef.{host},S=1" for when, host in missing]
    write(queue, "2026-11-24.a.boot1.pushed", f"{began}.0 push 1.a", f"{began + 200}.0 push 2.a")
    for name in ("1.a", "2.a", *keys):
        Path(queue.new, name).touch()
    assert audited(queue).unrecorded_keys == sorted(keys), "its host has not booted again"
    write(queue, "2026-11-24.a.boot2.pushed", f"{began + 400}.0 push 3.a")
    Path(queue.new, "3.a").touch()
    report = audited(queue)
    assert (report.unsynced, report.unrecorded_keys) == (1, sorted({*keys} - {keys[1]}))


@pytest.mark.parametrize("since", [-300, 300])
def test_a_push_since_this_host_has_booted_again_is_to_have_a_record(queue: Layout, since: int) -> None:
    booted_at = int(SYSTEM.time() - SYSTEM.boottime())
    key = f"{booted_at + since}.M000000P1Q1R0123456789abcdef.{host_name()},S=1"
    write(queue, f"2026-11-24.{host_name()}.boot1.pushed", f"{booted_at - 400}.0 push 1.a")
    for name in ("1.a", key):
        Path(queue.new, name).touch()
    report = audited(queue)
    assert (report.unsynced, report.unrecorded) == ((1, 0) if since < 0 else (0, 1))


def test_a_push_with_two_records_is_one_message(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.pushed", "1000.0 push 1.a", "1001.0 push 1.a", "1002.0 push 2.b")
    write(queue, "2026-11-24.a.1.settled", "1001.0 ack 1.a")
    Path(queue.new, "2.b").touch()
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects) == (2, 1, [])


def test_a_push_that_goes_on_after_its_entry_was_recovered_is_one_message(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)
    os.mkdir(queue.synced)

    def rename(source: str, target: str) -> None:
        synced.recover(queue, mount_time=math.inf)
        os.rename(source, target)

    key = Pusher(queue, host=LABEL, system=replace(SYSTEM, rename=rename)).push(lambda stem: [DATA])
    assert [os.listdir(queue.new), os.listdir(queue.synced)] == [[key], []]
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects, report.unrecorded) == (1, 0, [], 0)


def test_a_full_disk_is_told_from_a_loss_by_the_gap(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.pushed", "1000.0 push 1.a", "3000.0 push 2.b")
    write(queue, "2026-11-24.a.1.settled", "1900.0 gap 1500.0")
    report = audited(queue)
    assert verdicts(report) == {"1.a": "unproven", "2.b": "lost"}
    assert report.gaps == 1


def test_a_deletion_that_found_it_gone_leaves_it_to_be_proven(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.pushed", "1.0 push 1.a", "1.0 push 2.b")
    write(queue, "2026-11-24.a.1.settled", "2.0 delete 1.a", "2.0 kept 1.a", "2.0 delete 2.b", "2.0 kept 2.b")
    write(queue, "2026-11-24.a.1.settled", "3.0 ack 2.b")
    assert verdicts(audited(queue)) == {"1.a": "unproven"}


def test_a_requeued_letter_is_open_again(queue: Layout) -> None:
    key = push(queue)
    claim(queue, key).bury("no")
    entries.requeue(queue, entries.find(queue, key))
    assert audited(queue).found["waiting"] == 1
    os.unlink(f"{queue.new}/{EntryName(key=key, returns=2).waiting()}")
    assert verdicts(audited(queue)) == {key: "lost"}


def test_a_queue_without_a_journal_cannot_be_audited(tmp_path: Path) -> None:
    plain = create_queue(str(tmp_path / "plain"))
    record_keeping.end_journal(plain)
    with pytest.raises(JournalMissing, match="audit --on"):
        audit([plain.path])


def test_a_ledger_forgets_foreign_ends_of_former_days(queue: Layout) -> None:
    for day in range(10, 20):
        write(queue, f"2026-11-{day}.a.1.settled", f"1.0 ack {day}.foreign")
    ledger = KeyLedger([queue])
    ledger.read()
    kept = {key for (key,) in ledger._database.execute("SELECT key FROM early")}
    assert kept == {b"18.foreign", b"19.foreign"}


def peak_bytes(queue: Layout, count: int) -> int:
    """The most that an audit holds in Python's memory while so many keys are open."""
    write(queue, "2026-11-10.a.1.pushed", *(f"{n}.0 push {n}.M1P1Q{n}.a,S=1" for n in range(count)))
    tracemalloc.start()
    try:
        ledger = KeyLedger([queue])
        ledger.read()
        ledger.locate(0, "waiting", (EntryName(key=f"{n}.M1P1Q{n}.a,S=1") for n in range(count)))
        assert ledger.located() == {"waiting": count}
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_an_audits_memory_stays_flat_whatever_is_open(queue: Layout) -> None:
    few = peak_bytes(queue, 200)
    os.unlink(f"{queue.journal}/2026-11-10.a.1.pushed")
    assert peak_bytes(queue, 20_000) < 2 * few + 100_000


def test_an_audit_without_room_for_its_temporary_file_says_so(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: KeyLedger) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(KeyLedger, "read", full)
    with pytest.raises(MaildeferError, match="disk is full: make room for temporary files"):
        audited(queue)


def blind_push(queue: Layout) -> str:
    """Of a process that may not write to the journal."""
    os.rename(queue.journal, f"{queue.control}/away")
    try:
        journal.close_journals()
        return push(queue)
    finally:
        os.rename(f"{queue.control}/away", queue.journal)
        journal.close_journals()


def test_an_end_whose_push_left_no_record_is_named(queue: Layout) -> None:
    record_keeping.expect_records(queue)
    claim(queue, push(queue)).ack()
    key = blind_push(queue)
    claim(queue, key).ack()
    report = audited(queue)
    assert (report.accepted, report.unrecorded, report.unrecorded_keys) == (1, 1, [key])
    record_keeping.expect_records(queue)
    assert audited(queue).unrecorded == 0, "what went before is not asked for any more"


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_push_whose_program_was_killed_before_it_was_recorded_accuses_nobody(
    queue: Layout, has_ended: bool
) -> None:
    record_keeping.expect_records(queue)
    key = blind_push(queue)
    if has_ended:
        claim(queue, key).ack()
    assert audited(queue).unrecorded_keys == [key]
    write(queue, "2026-11-24.a.1.pushed", f"{time.time()} note {key} to=b@b.example")
    assert audited(queue).unrecorded_keys == []


def by_request(queue: Layout) -> str:
    pusher = Pusher(queue, host=LABEL)

    def write() -> list[Draft]:
        draft = pusher.draft()
        draft.append(DATA)
        draft.sync()
        return [draft]

    ((_, key),) = OncePusher(pusher).push("3f" * 16, "0" * 32, write).entries
    return key


def by_unique_key(queue: Layout) -> str:
    return Markers(queue, host=LABEL).push("only", lambda stem: [DATA]).key


@pytest.mark.parametrize("push_once", [by_request, by_unique_key])
@pytest.mark.parametrize("ends", [False, True])
def test_what_a_second_push_was_told_is_there_counts_where_the_first_was_killed_before_its_record(
    queue: Layout, push_once: Callable[[Layout], str], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_keeping.expect_records(queue)
    with monkeypatch.context() as killed:
        killed.setattr(journal.Journal, "record_pushes", lambda *_: None)
        key = push_once(queue)
    assert push_once(queue) == key
    taken = claim(queue, key)
    assert audited(queue).found["claimed"] == 1
    if ends:
        taken.ack()
    else:
        os.unlink(f"{queue.cur}/{taken.name}")
    report = audited(queue)
    assert (report.accepted, report.ended, report.unrecorded) == (1, ends, 0)
    assert verdicts(report) == ({} if ends else {key: "lost"})


@pytest.mark.parametrize("days", [0, 1, 2])
@pytest.mark.parametrize("recorded", [True, False])
def test_what_a_push_was_told_that_came_again_after_the_end_counts_once(
    queue: Layout, days: int, recorded: bool
) -> None:
    """However long after; without a record of it the journal began after the push."""
    key = f"{int(time.time() - 2 * DAY)}.M000000P1Q1R0123456789abcdef.h,S=1"
    began = time.time() - (3 if recorded else 1.5) * DAY
    write(queue, "2026-11-24.a.1.pushed", f"{began:.3f} begin journal {began:.3f}")
    if recorded:
        write(queue, "2026-11-24.a.1.pushed", f"{time.time() - 2 * DAY:.3f} push {key}")
        write(queue, "2026-11-24.a.1.settled", f"{time.time() - 2 * DAY:.3f} ack {key}")
    write(queue, f"2026-11-{24 + days}.a.2.pushed", f"{time.time():.3f} note {key} repeated=1")
    report = audited(queue)
    assert (report.accepted, report.suspects, report.unrecorded) == (int(recorded), [], 0)


def test_without_a_note_of_its_beginning_a_journal_has_begun_with_its_first_record(queue: Layout) -> None:
    now = int(time.time())
    keys = [f"{when}.M000000P1Q1R0123456789abcdef.h,S=1" for when in (now - 200, now - 50)]
    write(queue, "2026-11-24.a.1.pushed", f"{now - 100}.0 push 1.a")
    write(queue, "2026-11-24.a.1.settled", *(f"{now}.0 ack {key}" for key in ("1.a", *keys)))
    assert audited(queue).unrecorded_keys == [keys[1]]


def test_a_second_end_of_a_key_is_no_end_without_a_beginning(queue: Layout) -> None:
    record_keeping.expect_records(queue)
    key = push(queue)
    again = claim(queue, key)
    write(queue, "2026-11-01.a.1.settled", "1.0 kept nothing")  # of a former day
    journal.journal_of(queue).record_end("ack", key)  # type: ignore[union-attr]  # and killed before its unlink
    again.ack()
    assert audited(queue).unrecorded == 0


def test_what_was_handed_over_has_its_beginning_in_another_journal(queue: Layout, tmp_path: Path) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    record_keeping.expect_records(other)
    key = push(queue)
    name = claim(queue, key).handoff(other)
    handed = Claimer(other, FakeSlots(), lease=LEASE, host=LABEL).claim(
        name or EntryName(key=key).handed_on().waiting()
    )
    assert handed is not None
    handed.ack()
    assert audited(other).unrecorded == 0


def test_a_queue_that_hands_on_what_it_has_no_record_of_is_named(queue: Layout, tmp_path: Path) -> None:
    record_keeping.expect_records(queue)
    key = blind_push(queue)
    claim(queue, key).handoff(create_queue(str(tmp_path / "other")))
    assert audited(queue).unrecorded_keys == [key]


def test_a_push_that_is_recorded_while_the_audit_looks_is_heard_of(queue: Layout) -> None:
    record_keeping.expect_records(queue)
    key = blind_push(queue)
    claim(queue, key).ack()
    report = audited(queue, sleep=lambda seconds: journal.journal_of(queue).record_pushes([key]))  # type: ignore[union-attr]
    assert report.unrecorded == 0
    assert report.looks == 1, "by reading on, with the same look at the folders"


def test_a_file_of_the_journal_without_any_record_is_named(queue: Layout) -> None:
    Path(queue.journal, "2026-11-24.a.1.pushed").write_bytes(b"[" * 200_000)
    assert list(audited(queue).unreadable.values()) == ["holds no record"]
    with open(f"{queue.journal}/2026-11-24.a.1.pushed", "ab") as file:
        file.write(b"\n1.0 push 1.a .")
    assert audited(queue).unreadable == {}, "what was torn spoils no other record"


def test_a_torn_record_before_room_that_was_not_used_leaves_the_file_a_journals(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.m0.pushed", "1000.0 push 1.a")
    with open(f"{queue.journal}/2026-11-24.a.1.m0.pushed", "ab") as file:
        file.write(b"\n1001.0 pu" + bytes(1 << 16))
    report = audited(queue)
    assert (verdicts(report), report.unreadable) == ({"1.a": "lost"}, {})


class WrittenMeanwhile(io.FileIO):
    """A mapped file to which another process adds records while this one has read no further than the boundary."""

    def readinto(self, buffer: Any) -> int | None:
        if self.tell() == BOUNDARY and (more := MORE.copy()):
            MORE.clear()
            with open(PATHS[0], "r+b") as writer:
                writer.seek(BOUNDARY - 20)
                writer.write(b"".join(more))
        return super().readinto(buffer)


BOUNDARY, MORE, PATHS = 8192, list[bytes](), list[str]()


def test_records_that_come_while_a_file_is_read_are_read_the_next_time(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One begins in room that was read before, and ends behind it."""
    path = f"{queue.journal}/2026-11-24.a.1.m0.pushed"
    first = [b"\n%d.0 push %d.a ." % (n, n) for n in range(1000, 1300)]
    first[-1] = first[-1][:-2].ljust(BOUNDARY - 22 - len(b"".join(first[:-1])), b"a") + b" ."
    Path(path).write_bytes(b"".join(first) + bytes(1 << 16))
    more = [b"\n%d.0 push %d.b ." % (n, n) for n in range(2000, 2040)]
    MORE[:], PATHS[:] = more, [path]

    def opened(descriptor: int, mode: str) -> io.BufferedReader:
        return io.BufferedReader(WrittenMeanwhile(descriptor, mode), 4096)

    monkeypatch.setattr(journal_reader, "open", opened, raising=False)
    found, at = list[bytes](), 0
    for _ in range(2):
        lines = list(journal_reader.read_lines(path, at))
        found += [line for line, _ in lines if line]
        at = lines[-1][1]
    assert found == [record.strip() for record in (*first, *more)]


def test_records_behind_those_that_a_power_cut_has_taken_are_read(queue: Layout) -> None:
    write(queue, "2026-11-24.a.1.m0.pushed", "1000.0 push 1.a")
    with open(f"{queue.journal}/2026-11-24.a.1.m0.pushed", "ab") as file:
        file.write(bytes(3 << 20))
    write(queue, "2026-11-24.a.1.m0.pushed", "1001.0 push 2.b")
    report = audited(queue)
    assert (verdicts(report), report.unreadable) == ({"1.a": "lost", "2.b": "lost"}, {})


def test_a_file_of_the_journal_that_is_none_is_named_and_passed_over(queue: Layout) -> None:
    push(queue)
    os.mkfifo(f"{queue.journal}/2026-11-24.a.1.pushed")
    os.symlink("/etc/passwd", f"{queue.journal}/2026-11-24.b.1.settled")
    Path(f"{queue.journal}/2026-11-24.c.1.settled").touch()
    os.truncate(f"{queue.journal}/2026-11-24.c.1.settled", (64 << 20) + 1)
    report = audited(queue)
    assert report.accepted == 1
    assert {os.path.basename(path)[11:12]: why for path, why in report.unreadable.items()} == {
        "a": "is not a plain file",
        "b": "is not a plain file",
        "c": "holds what are no records",
    }


def push_for_later(queue: Layout, due: int) -> str:
    return Pusher(queue, host=LABEL).push(Planned(compose=lambda stem: [DATA], due=due))


def test_what_was_pushed_for_later_rescheduled_or_cancelled_is_proven(queue: Layout) -> None:
    soon = int(time.time()) + 60
    push_for_later(queue, soon)
    assert schedule.cancel(queue, push_for_later(queue, soon), host=LABEL)
    schedule.reschedule(queue, push_for_later(queue, soon), soon + 60, host=LABEL)
    schedule.reschedule(queue, push_for_later(queue, soon), None, host=LABEL)
    report = audited(queue)
    assert (report.accepted, report.ended, report.suspects) == (4, 1, [])
    assert report.found == {"waiting": 1, "claimed": 0, "deferred": 2, "dead": 0}


def test_what_was_pushed_for_later_before_the_journal_began_needs_no_record(tmp_path: Path) -> None:
    queue = create_queue(str(tmp_path / "other"))
    before = push_for_later(queue, int(time.time()) + 3600)
    journal.begin_journal(queue)
    record_keeping.expect_records(queue)
    assert audited(queue).unrecorded == 0
    key = push_for_later(queue, int(time.time()) + 3600)
    for name in os.listdir(queue.journal):
        path = Path(queue.journal, name)
        path.write_text("".join(line for line in path.read_text().splitlines(True) if key not in line))
    assert audited(queue).unrecorded_keys == [key]
    assert before != key
