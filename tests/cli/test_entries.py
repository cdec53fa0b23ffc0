"""`push`, `queue` and `dead`, on a real directory."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maildefer.cli import output
from maildefer.maildir import durable, journal
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import write_reason
from maildefer.message.envelope import split
from maildefer.queue import Queue
from tests.sampling import one_fast
from tests.support.queues import somebody_else

MESSAGE = b"Subject: caf\xe9\r\n\r\nbody\x1b[31m\n"


@pytest.fixture
def push(maildefer, queue):
    def one(*options: str) -> str:
        return maildefer("push", queue.path, *options, stdin=MESSAGE).out.strip()

    return one


def bury(layout, key: str, reason: str = "no route", **more: str) -> None:
    dead = EntryName.parse(key).returned()
    write_reason(layout, dead, reason, {"handler": "workers.x.START", **more}, host="h")
    os.rename(f"{layout.new}/{key}", f"{layout.dead_new}/{dead.waiting()}")


def defer(layout, key: str, due: float) -> None:
    os.rename(f"{layout.new}/{key}", f"{layout.later_new}/{EntryName.parse(key).deferred(int(due))}")


def claim(layout, key: str) -> None:
    name = EntryName.parse(key).claimed("host-0a1b2c-4242-0123456789ab.4243.7")
    os.rename(f"{layout.new}/{key}", f"{layout.cur}/{name}")


def test_pushed_bytes_stand_untouched_below_the_envelope(push, queue):
    key = push("-r", "post@osb.example", "-f", "a@b.example")
    data = Path(f"{queue.new}/{key}").read_bytes()
    envelope, offset = split(data, key)
    assert envelope == ("a@b.example", "post@osb.example")
    assert data[offset:] == MESSAGE


def test_a_push_without_a_recipient_adds_nothing(push, queue):
    assert Path(f"{queue.new}/{push()}").read_bytes() == MESSAGE


def test_each_recipient_gets_an_entry(push, queue):
    keys = push("-r", "a@x.example", "-r", "b@x.example").splitlines()
    assert sorted(os.listdir(queue.new)) == sorted(keys)
    assert len(keys) == 2


def test_many_files_are_pushed_in_order(maildefer, queue, tmp_path):
    files = [tmp_path / f"m{n}" for n in range(20)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number)
    ended = maildefer("push", queue.path, *map(str, files), "--json")
    assert ended.code == 0
    assert [Path(f"{queue.new}/{told['queue_id']}").read_bytes() for told in ended.records] == [
        b"%d" % number for number in range(20)
    ]


def test_an_entry_pushed_again_has_its_old_envelope_and_only_one(push, maildefer, queue):
    first = push("-r", "post@osb.example", "-f", "a@b.example")
    ended = maildefer("push", queue.path, f"{queue.new}/{first}")
    data = Path(f"{queue.new}/{ended.out.strip()}").read_bytes()
    assert split(data)[0] == ("a@b.example", "post@osb.example")
    assert data[split(data)[1] :] == MESSAGE


def test_a_sender_without_a_recipient_is_refused(maildefer, queue):
    ended = maildefer("push", queue.path, "-f", "a@b.example", stdin=MESSAGE)
    assert ended.code == 1
    assert os.listdir(queue.new) == []


def test_an_address_that_would_forge_a_line_is_refused(maildefer, queue):
    ended = maildefer("push", queue.path, "-r", "a@b\nX: y", stdin=MESSAGE)
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert os.listdir(queue.new) == []


def test_a_full_disk_is_a_temporary_failure(maildefer, queue, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable, "begin_file", full)
    ended = maildefer("push", queue.path, stdin=MESSAGE)
    assert ended.code == 75
    assert "free space" in ended.err


def test_a_mistyped_queue_is_not_made(maildefer):
    ended = maildefer("push", "run/mistyped", stdin=MESSAGE)
    assert ended.code == 1
    assert not os.path.exists("run")


def test_a_queue_that_the_settings_name_is_made(maildefer, monkeypatch):
    os.makedirs("named_here")
    with open("named_here/settings.py", "w") as file:
        file.write("queues = {'run/queue': ['workers.posting']}\n")
    monkeypatch.syspath_prepend(os.getcwd())
    monkeypatch.setenv("MAILDEFER_SETTINGS_MODULE", "named_here.settings")
    assert maildefer("push", "run/queue", stdin=MESSAGE).code == 0
    assert maildefer("push", "run/other", stdin=MESSAGE).code == 1


def test_the_list_tells_where_each_entry_is(maildefer, push, queue):
    waiting, claimed, deferred = (push("-r", "post@osb.example", "-f", "a@b.example") for _ in range(3))
    claim(queue, claimed)
    defer(queue, deferred, time.time() + 3600)
    told = {one["queue_id"]: one for one in maildefer("queue", "list", queue.path, "--json").records}
    assert {key: one["queue_name"] for key, one in told.items()} == {
        waiting: "waiting",
        claimed: "claimed",
        deferred: "deferred",
    }
    assert told[waiting]["sender"] == "a@b.example"
    assert told[waiting]["recipients"] == [{"address": "post@osb.example"}]
    assert told[waiting]["message_size"] == os.stat(f"{queue.new}/{waiting}").st_size
    assert told[claimed]["owner"] == {"lease": "host-0a1b2c-4242-0123456789ab", "pid": 4243}
    assert told[claimed]["attempts"] == 1
    assert 3500 < told[deferred]["due_time"] - time.time() < 3600
    assert "due in" in maildefer("queue", "list", queue.path).out


def test_a_claimed_entry_is_named_as_one_where_it_can_not_be_deleted(maildefer, push, queue):
    claimed = [push(), push()]
    for key in claimed:
        claim(queue, key)
    ended = maildefer("queue", "delete", queue.path, *claimed, "1.x")
    assert ended.code == 1
    for key in claimed:
        assert f"{key} in {queue.path} is claimed, a worker" in ended.err or f"{key} is claimed" in ended.err
    assert "no entry 1.x" in ended.err
    assert len(os.listdir(queue.cur)) == 2


def test_an_entry_that_was_put_off_is_listed_and_shown_with_the_reason_where_a_journal_tells(
    maildefer, push, queue
):
    journal.begin_journal(queue)
    key, untried = push(), push()
    os.rename(f"{queue.new}/{key}", f"{queue.later_new}/{key},a=1,d={int(time.time()) + 3600}")
    told = journal.journal_of(queue)
    told.record_note(key, {"outcome": "deferred", "reason": "450 first"})
    told.record_note(key, {"outcome": "deferred", "reason": "450 greylisted\x1b[31m"})
    told.record_note(untried, {"outcome": "released", "reason": "none of an attempt's"})
    tried, other = maildefer("queue", "list", queue.path).out.splitlines()
    if key not in tried:
        tried, other = other, tried
    assert re.search(r"due in .*: 450 greylisted", tried)
    assert "none of an" not in other
    shown = maildefer("queue", "show", queue.path, key)
    assert "450 greylisted" in shown.err
    assert "\x1b" not in tried + shown.err
    [record] = maildefer("queue", "show", queue.path, key, "--json").records
    assert record["reason"] == "450 greylisted\x1b[31m"


def test_an_entry_whose_handlers_are_done_says_so_and_what_is_deleted_with_it(maildefer, push, queue):
    key = push()
    os.rename(f"{queue.new}/{key}", f"{queue.later_new}/{key},o=1e39b62320,d={int(time.time()) + 60}")
    assert "its handlers are done, and what they sent waits" in maildefer("queue", "list", queue.path).out
    [record] = maildefer("queue", "list", queue.path, "--json").records
    assert record["handled"] is True
    ended = maildefer("queue", "delete", queue.path, key)
    assert f"{key}: its handlers were done; what they had sent and nobody had seen is given up" in ended.err


def test_the_list_ends_at_its_limit(maildefer, push, queue):
    push(), push(), push()
    assert len(maildefer("queue", "list", queue.path, "-n", "2", "--json").records) == 2


def test_a_name_from_elsewhere_cannot_write_to_the_terminal(maildefer, queue):
    Path(f"{queue.new}/1.evil\x1b[2J\n.host").touch()
    ended = maildefer("queue", "list", queue.path)
    assert "\x1b" not in ended.out
    assert ended.out.count("\n") == 1


@pytest.mark.parametrize("make", ["directory", "fifo", "link"])
def test_what_is_no_message_is_listed_all_the_same(maildefer, queue, make):
    path = f"{queue.new}/1.odd.host"
    {"directory": os.mkdir, "fifo": os.mkfifo, "link": lambda p: os.symlink("/etc/passwd", p)}[make](path)
    (told,) = maildefer("queue", "list", queue.path, "--json").records
    assert told["queue_id"] == "1.odd.host"
    assert "sender" not in told


@pytest.mark.slow
def test_show_gives_the_very_bytes_to_a_pipe(push, queue):

    key = push("-r", "post@osb.example")
    command = [sys.executable, "-m", "maildefer", "queue", "show", queue.path, key]
    assert subprocess.run(command, capture_output=True, check=True).stdout == MESSAGE
    whole = subprocess.run([*command, "--file"], capture_output=True, check=True).stdout
    assert whole == Path(f"{queue.new}/{key}").read_bytes()


def test_count_counts_every_folder(maildefer, push, queue):
    push(), bury(queue, push()), defer(queue, push(), 9e9)
    (told,) = maildefer("queue", "count", queue.path, "--json").records
    assert told == {
        "queue": queue.path,
        "waiting": 1,
        "claimed": 0,
        "deferred": 1,
        "held": 0,
        "dead": 1,
        "kept": 0,
    }
    assert maildefer("queue", "count", queue.path, "--in", "dead").out == "1\n"


@pytest.mark.slow
def test_what_is_kept_is_listed_and_shown_with_its_end_and_deleted(maildefer, push, queue):
    key, other = push("-r", "post@x.example"), push()
    kept = f"{queue.path}/.done/new/{key},a=1,n=1,d={int(time.time()) + 7200}"
    os.makedirs(os.path.dirname(kept))
    os.rename(f"{queue.new}/{key}", kept)
    line = maildefer("queue", "list", queue.path, "--in", "kept").out
    assert line.startswith("kept ")
    assert "post@x.example" in line
    assert "kept for 120 min" in line
    assert other not in line
    assert key not in maildefer("queue", "list", queue.path).out
    assert (
        subprocess.run(
            [sys.executable, "-m", "maildefer", "queue", "show", queue.path, key],
            capture_output=True,
            check=True,
        ).stdout
        == MESSAGE
    )
    assert maildefer("queue", "count", queue.path, "--in", "kept").out == "1\n"
    assert maildefer("queue", "clear", queue.path, "--in", "kept", "--yes").code == 0
    assert (os.path.exists(kept), os.listdir(queue.new)) == (False, [other])


def test_a_released_entry_waits_again_with_its_attempts(maildefer, push, queue):
    key = push()
    os.rename(f"{queue.new}/{key}", f"{queue.later_new}/{key},a=2,n=2,d=9999999999")
    assert maildefer("queue", "release", queue.path, key).out.strip() == key
    assert os.listdir(queue.new) == [f"{key},a=2,n=3"]


def test_a_message_is_pushed_and_listed_with_its_priority(maildefer, push, queue):
    push("-r", "post@osb.example", "--priority", "high")
    (name,) = os.listdir(queue.new)
    assert ",p=high," in name
    told = maildefer("queue", "list", queue.path).out
    assert "try 0   high  " in told
    (told,) = maildefer("queue", "list", queue.path, "--json").records
    assert told["priority"] == "high"


def test_a_priority_that_is_none_is_refused(maildefer, queue):
    ended = maildefer("push", queue.path, "--priority", "urgent", stdin=MESSAGE)
    assert ended.code == 2
    assert "'urgent' is none of high, normal, low" in " ".join(ended.err.replace("│", " ").split())
    assert os.listdir(queue.new) == []


def due_times(layout) -> list[int | None]:
    return [EntryName.parse(name).due for name in os.listdir(layout.later_new)]


@pytest.mark.parametrize(("after", "seconds"), [("60", 60), ("5m", 300), ("2h", 7200)])
def test_a_message_is_pushed_for_later(push, queue, after, seconds):
    key = push("-r", "post@osb.example", "--after", after)
    assert os.listdir(queue.new) == []
    (due,) = due_times(queue)
    assert time.time() + seconds - 10 < due < time.time() + seconds + 10
    assert os.listdir(queue.later_new) == [f"{key},d={due}"]


def test_a_message_is_pushed_for_a_time_in_any_zone(push, queue):
    push("--at", "2090-01-01T01:00+01:00")
    push("--at", "2090-01-01T00:00:00Z")
    assert due_times(queue) == [3786912000] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--after", "soon"), "such as 90s"),
        (("--after", "-5"), "such as 90s"),
        (("--after", "9999999d"), "beyond the year 2100"),
        (("--at", "tomorrow"), "with its zone"),
        (("--at", "2090-01-01"), "with its zone"),
        (("--at", "2001-01-01T00:00Z"), "is past, by the clock of the queue's mount"),
        (("--at", "2200-01-01T00:00Z"), "beyond the year 2100"),
        (("--at", "2090-01-01T00:00Z", "--after", "5"), "give one"),
    ],
)
def test_what_is_no_time_is_a_usage_error(maildefer, queue, options, said):
    ended = maildefer("push", queue.path, *options, stdin=MESSAGE)
    assert ended.code == 2
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert os.listdir(queue.new) + os.listdir(queue.later_new) == []


def test_a_listing_tells_when_an_entry_arrived_and_when_it_is_due(maildefer, push, queue):
    push("--after", "3h")
    (told,) = maildefer("queue", "list", queue.path, "--json").records
    assert abs(told["arrival_time"] - time.time()) < 60
    assert told["due_time"] > time.time() + 10000
    assert "due in 3.0 h" in maildefer("queue", "list", queue.path).out


def test_entries_are_rescheduled_with_their_counters(maildefer, push, queue):
    key, other = push("--after", "2h"), push()
    ended = maildefer("queue", "reschedule", queue.path, "--all", "--at", "2090-01-01T00:00Z")
    assert sorted(ended.out.split()) == sorted([key, other])
    assert sorted(os.listdir(queue.later_new)) == sorted(f"{each},n=1,d=3786912000" for each in (key, other))
    assert maildefer("queue", "reschedule", queue.path, key, "--after", "0").code == 0
    assert os.listdir(queue.new) == [f"{key},n=2"]


def test_a_reschedule_without_a_time_or_an_entry_is_refused(maildefer, push, queue):
    key = push()
    assert maildefer("queue", "reschedule", queue.path, key).code == 2
    assert maildefer("queue", "reschedule", queue.path, "--after", "5").code == 2
    ended = maildefer("queue", "reschedule", queue.path, "1.x", "--after", "5")
    assert (ended.code, "no entry 1.x" in ended.err) == (1, True)
    claim(queue, key)
    assert maildefer("queue", "reschedule", queue.path, key, "--after", "5").code == 1


def test_delete_takes_only_what_was_named(maildefer, push, queue):
    keys = [push() for _ in range(3)]
    assert maildefer("queue", "delete", queue.path, keys[0], keys[2]).code == 0
    assert os.listdir(queue.new) == [keys[1]]


def test_an_unknown_key_is_a_failure_after_the_others_were_done(maildefer, push, queue):
    first, second = push(), push()
    ended = maildefer("queue", "delete", queue.path, first, second, "no-such-key")
    assert ended.code == 1
    assert "no-such-key" in ended.err
    assert os.listdir(queue.new) == []


def test_a_directory_among_the_dead_is_named_after_the_others_are_deleted(maildefer, queue):
    os.mkdir(f"{queue.dead_new}/b")
    for file in "ac":
        Path(queue.dead_new, file).touch()
    ended = maildefer("dead", "delete", queue.path, "--all", "--yes")
    assert ended.code == 1
    assert sorted(ended.out.split()) == ["a", "c"]
    assert "rm -r" in ended.err


def test_each_unknown_key_is_told_once(maildefer, push, queue):
    ended = maildefer("queue", "delete", queue.path, push(), "one", "two")
    assert (ended.err.count("no entry one"), ended.err.count("no entry two")) == (1, 1)


def test_a_claimed_entry_cannot_be_deleted(maildefer, push, queue):
    key = push()
    claim(queue, key)
    assert maildefer("queue", "delete", queue.path, key).code == 1
    assert len(os.listdir(queue.cur)) == 1


def test_deleting_all_asks_first(maildefer, push, queue):
    push()
    assert maildefer("queue", "delete", queue.path, "--all").code == 1
    assert maildefer("queue", "clear", queue.path).code == 1
    assert len(os.listdir(queue.new)) == 1
    assert maildefer("queue", "clear", queue.path, "--yes").code == 0
    assert os.listdir(queue.new) == []


def test_nothing_chosen_is_a_usage_error(maildefer, push, queue):
    bury(queue, push())
    assert maildefer("dead", "requeue", queue.path).code == 2
    assert len(os.listdir(queue.dead_new)) == 1


def test_dead_letters_are_listed_with_their_reasons(maildefer, push, queue):
    key = push("-r", "post@osb.example")
    bury(queue, key, "the database\x1b[31m is gone")
    ended = maildefer("dead", "list", queue.path)
    assert r"the database\x1b[31m is gone" in ended.out
    assert key in ended.out
    (told,) = maildefer("dead", "list", queue.path, "--json").records
    assert told["reason"] == "the database\x1b[31m is gone"


def test_a_dead_letter_is_shown_with_what_happened(maildefer, push, queue):
    key = push()
    bury(queue, key)
    ended = maildefer("dead", "show", queue.path, key)
    assert "reason: no route" in ended.out
    assert "handler: workers.x.START" in ended.out
    assert re.search(r"^time: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, \d+ ms ago$", ended.out, re.MULTILINE)
    assert "body" in ended.out


def test_requeue_by_reason_takes_those_and_no_others(maildefer, push, queue):
    route, crash = push(), push()
    bury(queue, route, "no route"), bury(queue, crash, "crash limit")
    ended = maildefer("dead", "requeue", queue.path, "--reason", "Crash")
    assert ended.out.strip() == crash
    assert os.listdir(queue.new) == [f"{crash},n=2"]
    assert os.listdir(queue.dead_new) == [f"{route},n=1"]


def test_the_logs_words_for_a_reason_are_understood_too(maildefer, push, queue):
    key = push()
    bury(queue, key, "its worker died 5 times while handling it", error="crash limit")
    for reason in ("crash limit", "died 5 times"):
        assert (
            maildefer("dead", "list", queue.path, "--reason", reason, "--json").records[0]["queue_id"] == key
        )


def test_an_empty_reason_is_not_everybodys(maildefer, push, queue):
    """As in a script whose variable is not set."""
    key = push()
    bury(queue, key)
    assert maildefer("dead", "delete", queue.path, "--reason", "", "--yes").code == 2
    assert os.listdir(queue.dead_new) == [f"{key},n=1"]


def test_only_those_that_lie_there_long_enough_are_taken(maildefer, push, queue):
    key = push()
    bury(queue, key)
    assert maildefer("dead", "requeue", queue.path, "--older-than", "1h").out == ""
    assert maildefer("dead", "requeue", queue.path, "--older-than", "0s").out.strip() == key


@pytest.mark.parametrize("age", ["", "5y", "h", "-1h", "1.5h"])
def test_an_age_that_is_none_is_refused(maildefer, queue, age):
    ended = maildefer("dead", "list", queue.path, f"--older-than={age}")
    assert ended.code == 2
    assert "is no age" in ended.err


def test_a_deleted_dead_letter_leaves_no_reason_behind(maildefer, push, queue):
    key = push()
    bury(queue, key)
    assert maildefer("dead", "delete", queue.path, key).code == 0
    assert os.listdir(queue.dead_new) == []
    assert os.listdir(queue.reasons) == []


def aged(layout, *seconds: int) -> list[str]:
    """Waiting entries that were pushed at these times, made in this order."""
    names = [f"{second}.M1P1Q1R{second:x}.host-0a1b2c" for second in seconds]
    for name in names:
        Path(f"{layout.new}/{name}").write_bytes(MESSAGE)
    return names


def test_the_list_begins_with_the_oldest_of_all_folders(maildefer, queue):
    names = aged(queue, 1_700_000_030, 1_700_000_010, 1_700_000_020, 999)
    claim(queue, names[0])
    defer(queue, names[1], 9e9)
    listed = [told["queue_id"] for told in maildefer("queue", "list", queue.path, "--json").records]
    assert listed == [names[3], names[1], names[2], names[0]]


@pytest.mark.parametrize("command", ["queue", "dead"])
def test_a_limited_list_has_the_oldest(maildefer, queue, command):
    names = aged(queue, *(1_700_000_000 + number * 7919 % 101 for number in range(101)))
    if command == "dead":
        for name in names:
            bury(queue, name)
    told = maildefer(command, "list", queue.path, "-n", "3", "--json").records
    assert [one["arrival_time"] for one in told] == [1_700_000_000, 1_700_000_001, 1_700_000_002]


def test_a_key_may_be_cut_short_where_it_begins_only_one(maildefer, queue):
    first, second = aged(queue, 1_700_000_011, 1_700_000_012)
    assert maildefer("queue", "show", queue.path, "1700000012", "--json").records[0]["queue_id"] == second
    assert maildefer("queue", "delete", queue.path, first[:10]).out.strip() == first
    assert os.listdir(queue.new) == [second]
    bury(queue, second)
    assert "no route" in maildefer("dead", "show", queue.path, "170").out
    assert maildefer("dead", "list", queue.path, "17", "--json").records[0]["queue_id"] == second
    assert maildefer("dead", "requeue", queue.path, "17").out.strip() == second


@pytest.mark.parametrize("command", ["queue", "dead"])
@pytest.mark.parametrize("short", ["1", "170000001"])
def test_nothing_is_deleted_by_a_few_characters_of_a_key(maildefer, queue, command, short):
    [name] = aged(queue, 1_700_000_012)
    if command == "dead":
        bury(queue, name)
    ended = maildefer(command, "delete", queue.path, short)
    assert (ended.code, ended.out) == (2, "")
    assert f"'{short}' is too short to delete {name} by" in " ".join(ended.err.split())
    assert len(os.listdir(queue.new) + os.listdir(queue.dead_new)) == 1


def test_of_several_keys_none_is_deleted_where_one_is_too_short(maildefer, queue):
    names = aged(queue, 1_700_000_011, 1_800_000_012)
    assert maildefer("queue", "delete", queue.path, names[0], "18").code == 2
    assert sorted(os.listdir(queue.new)) == names


def test_a_short_key_that_is_whole_is_deleted(maildefer, queue):
    Path(f"{queue.new}/1.a").write_bytes(MESSAGE)
    assert maildefer("queue", "delete", queue.path, "1.a").out == "1.a\n"


@pytest.mark.parametrize("more", [[], ["1700000013"]])
def test_a_key_that_begins_several_is_refused_and_nothing_is_done(maildefer, queue, more):
    names = aged(queue, 1_700_000_011, 1_700_000_012, 1_700_000_013)
    ended = maildefer("queue", "delete", queue.path, *more, "170000001")
    assert ended.code == 1
    assert "170000001 begins several keys" in ended.err
    assert names[0] in ended.err
    assert sorted(os.listdir(queue.new)) == names


def test_a_whole_key_is_meant_where_it_begins_others_too(maildefer, queue):
    for name in ("1.a", "1.ab", "1.abc"):
        Path(f"{queue.dead_new}/{name}").write_bytes(MESSAGE)
    assert maildefer("dead", "delete", queue.path, "1.ab").out == "1.ab\n"
    assert sorted(os.listdir(queue.dead_new)) == ["1.a", "1.abc"]


@one_fast("served", [True, False])
@pytest.mark.slow
def test_looking_needs_permission_to_read_only(maildefer, queue, served):
    """Also where it is root's; the folders of a Maildir that nobody has served are not made."""
    (key,) = aged(queue, 1_700_000_011)
    if not served:
        shutil.rmtree(queue.control)
        shutil.rmtree(f"{queue.path}/.later")
    for folder, _, files in os.walk(queue.path):
        os.chmod(folder, 0o555)
        for file in files:
            os.chmod(f"{folder}/{file}", 0o444)
    for arguments in (["list", queue.path], ["show", queue.path, key], ["count", queue.path]):
        ended = subprocess.run(
            [sys.executable, "-m", "maildefer", "queue", *arguments],
            capture_output=True,
            preexec_fn=_heed_permissions,
            check=False,
        )
        assert (ended.returncode, b"maildefer:" in ended.stderr) == (0, False), ended.stderr
    assert os.path.isdir(queue.control) is served


def _heed_permissions() -> None:
    """Make root a user for whom files' modes count: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH."""
    prctl, drop_from_bounding_set = ctypes.CDLL(None).prctl, 24
    for capability in (1, 2):
        prctl(drop_from_bounding_set, capability, 0, 0, 0)


@pytest.mark.slow
def test_what_a_queues_max_bytes_allows_can_be_shown(queue):
    key = "1700000011.large"
    with open(f"{queue.new}/{key}", "wb") as file:
        file.truncate((64 << 20) + 1)
    command = [sys.executable, "-m", "maildefer", "queue", "show", queue.path, key]
    shown = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    assert len(shown) == (64 << 20) + 1


def test_what_no_worker_would_read_is_printed_as_a_raw_file_only(maildefer, queue):
    key = "1700000011.sparse"
    with open(f"{queue.new}/{key}", "wb") as file:
        file.truncate(3 << 30)
    ended = maildefer("queue", "show", queue.path, key)
    assert (ended.code, ended.out) == (1, "")
    assert "`maildefer queue show QUEUE KEY --file` prints all of it" in ended.err


def test_a_servers_reply_is_told_as_text(maildefer, monkeypatch):
    import smtplib

    from maildefer.message.outgoing.relay import Relay

    def refuse(*_, **__):
        raise smtplib.SMTPDataError(554, "5.7.1 caf\xe9".encode())

    monkeypatch.setattr(Relay, "deliver", refuse)
    said = maildefer("send", "--sender", "a@b.example", "--to", "c@d.example", "--body", "x").err
    assert "said 554 5.7.1 caf\xe9" in said


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.2 kB"), (51_000_000, "51 MB"), (1.5e9, "1.5 GB"), (3e13, "30 TB")],
)
def test_a_size_is_told_in_a_unit_that_fits(number, text):
    assert output.size(number) == text


def test_the_dead_letters_of_an_undeliverable_queue_wait_there_with_their_reasons(maildefer, tmp_path):
    queue = Queue(str(tmp_path / "undeliverable"))
    queue.push(b"Subject: not one of them\n\n")
    key = queue.push_undeliverable(b"Subject: x\n\n", "no route", handler="app.START")
    assert [row["reason"] for row in maildefer("dead", "list", queue.dir, "--json").records] == ["no route"]
    listed = maildefer("dead", "list", queue.dir).err
    assert "requeue" not in listed
    requeued = maildefer("dead", "requeue", queue.dir, "--all").err
    assert "0 entries requeued" in requeued
    for told in (listed, requeued):
        assert (
            f"gave to {queue.dir} as undeliverable waits there already: to try it again, list the queue"
            in told
        )
    assert "app.START" in maildefer("dead", "show", queue.dir, key).out
    assert sorted(queue.keys()).index(key) >= 0
    assert maildefer("dead", "delete", queue.dir, key).code == 0
    assert (len(queue), os.listdir(queue.layout.reasons)) == (1, [])


def test_all_that_cannot_be_deleted_is_named(maildefer, push, queue):
    bury(queue, key := push())
    folders = [f"170000000{n}.M1P1.h" for n in range(3)]
    for name in folders:
        os.mkdir(f"{queue.dead_new}/{name}")
    ended = maildefer("dead", "delete", queue.path, "--all", "-y")
    assert (ended.code, ended.out) == (1, f"{key}\n")
    assert all(ended.err.count(name) == 1 for name in folders), ended.err
    ended = maildefer("dead", "delete", queue.path, *folders[:2])
    assert all(name in ended.err for name in folders[:2]), ended.err


def test_of_very_much_that_cannot_be_deleted_twenty_are_named_and_the_others_counted(maildefer, queue):
    for number in range(123):
        os.mkdir(f"{queue.dead_new}/{number}.M1P1.h")
    ended = maildefer("dead", "delete", queue.path, "--all", "-y")
    assert ended.code == 1
    assert ended.err.count(" is a directory ") == 20
    assert "and 103 more" in ended.err


@pytest.mark.parametrize("command", [("dead", "show"), ("dead", "delete"), ("queue", "show")])
def test_an_empty_key_is_called_one(maildefer, queue, command):
    ended = maildefer(*command, queue.path, "")
    assert ended.code == 2
    assert "key is empty" in ended.err


def test_an_entry_that_was_due_is_not_due_in_negative_time(maildefer, push, queue):
    defer(queue, push(), time.time() - 32)
    (line,) = maildefer("queue", "list", queue.path).out.splitlines()
    assert re.search(r"due since 3[0-9] s", line), line


def test_what_is_no_traceback_is_not_shown_as_one(maildefer, push, queue):
    bury(queue, told := push(), traceback="the handlers are: a, b")
    bury(queue, raised := push(), traceback="Traceback (most recent call last):\n  ...")
    assert "\ndetail: the handlers" in maildefer("dead", "show", queue.path, told).out
    assert "\ntraceback: Traceback" in maildefer("dead", "show", queue.path, raised).out


def test_a_push_of_a_unique_key_that_has_not_ended_stores_nothing_and_names_the_key(maildefer, queue):
    first = maildefer("push", queue.path, "--unique", "order-17", stdin=MESSAGE)
    second = maildefer("push", queue.path, "--unique", "order-17", stdin=MESSAGE)
    assert (first.code, second.code) == (0, 0)
    key = first.out.strip()
    assert second.out.strip() == key
    assert f"nothing stored: {key}" in second.err
    assert os.listdir(queue.new) == [key]
    told = json.loads(maildefer("push", queue.path, "--unique", "order-17", "--json", stdin=MESSAGE).out)
    assert (told["queue_id"], told["new"]) == (key, False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--unique", ""), "is empty"),
        (("--unique", "x" * 1025), "has 1025 bytes"),
        (("--unique", "a", "--mbox"), "one message"),
        (("--unique", "a", "-r", "a@b.example", "-r", "c@b.example"), "one recipient"),
    ],
)
def test_what_is_no_unique_key_is_a_usage_error(maildefer, queue, options, said):
    ended = maildefer("push", queue.path, *options, stdin=MESSAGE)
    assert ended.code == 2
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert os.listdir(queue.new) == []


def test_a_dead_letter_whose_unique_key_another_entry_has_is_not_requeued(maildefer, push, queue):
    key = push("--unique", "order-17")
    os.rename(f"{queue.new}/{key}", f"{queue.dead_new}/{key},n=1")
    os.unlink(f"{queue.control}/unique/{key.partition(',q=')[2][:16]}/{key}")
    second = push("--unique", "order-17")
    refused = maildefer("dead", "requeue", queue.path, key)
    assert refused.code == 1
    assert f"has the unique key of {second}" in " ".join(refused.err.split())
    assert os.listdir(queue.dead_new) == [f"{key},n=1"]


@pytest.mark.parametrize(
    ("command", "chosen"), [("dead", ("--all",)), ("dead", ("--reason", "broken")), ("queue", ("--all",))]
)
def test_a_requeue_of_many_goes_on_past_those_whose_unique_key_is_held_and_names_each(
    maildefer, push, queue, command, chosen
):
    held = []
    for number in range(3):
        held.append(key := push("--unique", f"order-{number}"))
        os.unlink(f"{queue.control}/unique/{key.partition(',q=')[2][:16]}/{key}")
        bury(queue, key, "broken")
        push("--unique", f"order-{number}")
    free = {push(), push("--unique", "order-17")}
    for key in free:
        bury(queue, key, "broken")
    ended = maildefer(command, "requeue", queue.path, *chosen)
    assert ended.code == 1
    assert set(ended.out.split()) == free
    assert {EntryName.parse(name).key for name in os.listdir(queue.dead_new)} == set(held)
    assert all(f"{key} has the unique key of " in ended.err for key in held)
    assert "2 entries requeued" in ended.err


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to be somebody else")
@pytest.mark.parametrize(
    ("options", "may_put", "code"),
    [
        ((), False, 77),
        (("--unique", "order-17"), False, 77),
        ((), True, 0),
        (("--unique", "order-17"), True, 77),
    ],
)
def test_who_has_no_right_to_push_is_not_asked_to_try_again(
    maildefer, queue, public_queue, options, may_put, code
):
    maildefer("push", queue.path, *options, stdin=MESSAGE)  # loads what that user may not read
    if may_put:
        for folder in (public_queue.tmp, public_queue.new):
            os.chmod(folder, 0o777)
    with somebody_else():
        ended = maildefer("push", public_queue.path, *options, stdin=MESSAGE)
    assert ended.code == code
    assert ("may only put entries" in ended.err) is (may_put and code == 77)
    assert ("write permission" in ended.err) is not may_put
    assert os.listdir(public_queue.tmp) == []
