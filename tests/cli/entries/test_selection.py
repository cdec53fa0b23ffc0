"""Entries are chosen by sender, recipient, text, reason and age, in every command of `queue` and `dead`."""

from __future__ import annotations

import base64
import os
import shutil
import time
from pathlib import Path

import pytest

from maildefer.maildir.layout import create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import write_reason

MESSAGE = b"Subject: an order\r\n\r\nof three\r\n"


@pytest.fixture
def push(maildefer, queue):
    def one(sender: str = "ann@a.example", recipient: str = "bob@b.example", data: bytes = MESSAGE) -> str:
        return maildefer(
            "push", queue.path, f"--sender={sender}", f"--recipient={recipient}", stdin=data
        ).out.strip()

    return one


def listed(maildefer, queue, *options: str) -> set[str]:
    ended = maildefer("queue", "list", queue.path, "--json", *options)
    assert ended.code == 0, ended.err
    return {one["queue_id"] for one in ended.records}


def aged(queue, key: str, seconds: float) -> str:
    """The entry, as if it had been pushed so long ago."""
    fresh = f"{int(time.time() - seconds)}.{key.partition('.')[2]}"
    os.rename(f"{queue.new}/{key}", f"{queue.new}/{fresh}")
    return fresh


@pytest.mark.parametrize(
    ("wanted", "addresses"),
    [
        ("ann@a.example", {"ann@a.example"}),
        ("ANN@A.example", {"ann@a.example"}),
        ("<ann@a.example>", {"ann@a.example"}),
        ("@a.example", {"ann@a.example", "anna@a.example"}),
        ("ann*@a.example", {"ann@a.example", "anna@a.example"}),
        ("*@*.example", {"ann@a.example", "anna@a.example", "ann.b@c.example"}),
        ("ann", set()),
        ("ann.@a.example", set()),
        ("a.example", set()),
    ],
)
@pytest.mark.parametrize("option", ["sender", "recipient"])
def test_addresses_are_chosen_by_address_domain_or_pattern(maildefer, push, queue, option, wanted, addresses):
    keys = {push(**{option: one}): one for one in ("ann@a.example", "anna@a.example", "ann.b@c.example")}
    assert {keys[key] for key in listed(maildefer, queue, f"--{option}={wanted}")} == addresses


def test_the_null_sender_is_chosen_by_its_brackets(maildefer, push, queue):
    push()
    key = push(sender="")
    assert listed(maildefer, queue, "--sender=<>") == {key}


def test_an_entry_of_another_writer_has_no_addresses_and_is_chosen_by_its_text(maildefer, queue):
    Path(queue.new, "1.other").write_bytes(MESSAGE)
    assert listed(maildefer, queue, "--sender=*") == set()
    assert listed(maildefer, queue, "--recipient=<>") == set()
    assert listed(maildefer, queue, "--text=AN ORDER") == {"1.other"}


ENCODED = (
    b"Subject: =?utf-8?b?R3LDvMOfZSBhdXMgS8O2bG4=?=\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.b64encode("Rechnung für März".encode()) + b"\r\n"
)


@pytest.mark.parametrize("text", ["rechnung", "für März", "grüße aus köln", "Content-Transfer-Encoding"])
def test_text_is_found_in_headers_and_bodies_as_people_read_them(maildefer, push, queue, text):
    push()
    key = push(data=ENCODED)
    assert listed(maildefer, queue, f"--text={text}") == {key}


def test_text_is_found_in_a_part_of_many(maildefer, push, queue):
    push()
    multipart = (
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\none\r\n--x\r\n'
        + ENCODED.partition(b"\r\n")[2]
        + b"\r\n--x--\r\n"
    )
    assert listed(maildefer, queue, "--text=MÄRZ") == set()
    key = push(data=multipart)
    assert listed(maildefer, queue, "--text=MÄRZ") == {key}


def test_bytes_that_are_no_mail_are_looked_through_all_the_same(maildefer, push, queue):
    key = push(data=bytes(range(256)) * 4)
    assert listed(maildefer, queue, "--text=ABCDEF") == {key}
    assert listed(maildefer, queue, "--text=nowhere") == set()


def test_a_file_that_is_too_large_to_look_through_is_named(maildefer, push, queue):
    with open(f"{queue.new}/1.large", "wb") as file:
        file.truncate((64 << 20) + 1)
    ended = maildefer("queue", "list", queue.path, "--text=order")
    assert ended.code == 0
    assert "1.large" in ended.err
    assert "--text" in ended.err


def test_ages_bound_from_both_sides(maildefer, push, queue):
    young, middle, old = push(), aged(queue, push(), 7200), aged(queue, push(), 172_800)
    assert listed(maildefer, queue, "--older-than=1h") == {middle, old}
    assert listed(maildefer, queue, "--newer-than=1d") == {young, middle}
    assert listed(maildefer, queue, "--older-than=1h", "--newer-than=1d") == {middle}


def test_all_conditions_are_to_be_true(maildefer, push, queue):
    push(), push(sender="eve@a.example"), push(recipient="eve@b.example")
    wanted = push(sender="eve@a.example", recipient="eve@b.example")
    assert listed(maildefer, queue, "--sender=eve@*", "--recipient=eve@*") == {wanted}
    assert listed(maildefer, queue, wanted, "--sender=ann*") == set()


@pytest.mark.parametrize("option", ["--reason=x", "--reason-is=x"])
@pytest.mark.parametrize("command", ["list", "hold", "release", "delete"])
def test_a_reason_is_refused_where_none_of_what_is_chosen_has_one(maildefer, queue, command, option):
    ended = maildefer("queue", command, queue.path, option, *(["--yes"] if command == "delete" else []))
    assert ended.code == 2
    assert "Only dead letters have a reason" in ended.err
    assert maildefer("queue", "count", queue.path, option).code == 0
    assert maildefer("queue", "list", queue.path, option, "--in=dead").code == 0


@pytest.mark.parametrize("option", ["--sender", "--recipient", "--text", "--reason", "--reason-is"])
@pytest.mark.parametrize("command", [("queue", "delete"), ("queue", "hold"), ("dead", "requeue")])
def test_an_empty_condition_as_of_an_unset_variable_is_refused(maildefer, push, queue, command, option):
    key = push()
    ended = maildefer(*command, queue.path, option, "")
    assert ended.code == 2
    assert option in ended.err
    assert os.listdir(queue.new) == [key]


@pytest.mark.parametrize("command", ["release", "reschedule", "hold", "unhold", "move", "delete", "requeue"])
def test_every_command_that_changes_entries_takes_conditions_and_wants_one(
    maildefer, push, queue, tmp_path, command
):
    other = create_queue(str(tmp_path / "other"))
    more = {"move": ["--to", other.path], "reschedule": ["--after=1h"]}.get(command, [])
    key = push()
    ended = maildefer("queue", command, queue.path, *more)
    assert ended.code == 2
    assert "--all" in ended.err
    if command == "delete":
        more.append("--yes")
    ended = maildefer("queue", command, queue.path, *more, "--sender=nobody@*")
    assert (ended.code, ended.out) == (0, "")
    assert os.listdir(queue.new) == [key]


def test_dead_letters_are_chosen_by_their_envelope_and_text(maildefer, push, queue):
    keys = [push(), push(recipient="eve@b.example"), push(data=ENCODED)]
    for key in keys:
        dead = EntryName.parse(key).returned()
        write_reason(queue, dead, "no route", {}, host="h")
        os.rename(f"{queue.new}/{key}", f"{queue.dead_new}/{dead.waiting()}")
    assert maildefer("dead", "requeue", queue.path, "--recipient=eve@b.example").out.strip() == keys[1]
    assert maildefer("dead", "requeue", queue.path, "--text=März").out.strip() == keys[2]
    assert (
        maildefer("dead", "delete", queue.path, "--reason=route", "--sender=ann@*", "--yes").out.strip()
        == keys[0]
    )


# On hold


def test_what_is_on_hold_is_told_as_such_and_tried_by_nobody_until_it_is_let_go(maildefer, push, queue):
    key, other = push(), push(sender="eve@a.example")
    assert maildefer("queue", "hold", queue.path, "--sender=ann@*").out.strip() == key
    assert os.listdir(queue.new) == [other]
    assert listed(maildefer, queue, "--in=held") == {key}
    assert "on hold" in maildefer("queue", "list", queue.path, "--in=held").out
    (counted,) = maildefer("queue", "count", queue.path, "--json").records
    assert (counted["waiting"], counted["deferred"], counted["held"]) == (1, 0, 1)
    assert maildefer("queue", "release", queue.path, "--all").out == ""
    assert maildefer("queue", "reschedule", queue.path, "--sender=ann@*", "--after=1h").out == ""
    assert listed(maildefer, queue, "--in=held") == {key}
    assert maildefer("queue", "unhold", queue.path, "--all").out.strip() == key
    assert listed(maildefer, queue, "--in=waiting") == {key, other}


def test_a_held_entry_that_is_named_may_be_released_or_deleted(maildefer, push, queue):
    first, second = push(), push()
    maildefer("queue", "hold", queue.path, "--all")
    assert maildefer("queue", "release", queue.path, first).out.strip() == first
    assert maildefer("queue", "delete", queue.path, second).out.strip() == second
    assert maildefer("queue", "hold", queue.path, first).out.strip() == first


def test_what_was_deferred_is_no_longer_due_when_it_is_let_go_and_what_was_pushed_for_later_is(
    maildefer, push, queue
):
    key = push()
    os.rename(
        f"{queue.new}/{key}", f"{queue.later_new}/{EntryName.parse(key).deferred(int(time.time()) + 900)}"
    )
    later = maildefer("push", queue.path, "--recipient=a@b.example", "--after=1h", stdin=MESSAGE).out.strip()
    assert len(maildefer("queue", "hold", queue.path, "--all").out.split()) == 2
    assert len(maildefer("queue", "unhold", queue.path, "--all").out.split()) == 2
    assert listed(maildefer, queue, "--in=waiting") == {key}
    (left,) = maildefer("queue", "list", queue.path, "--in=deferred", "--json").records
    assert left["queue_id"] == later
    assert 3500 < left["due_time"] - time.time() < 3602


# Moving


def test_entries_are_moved_to_another_queue_with_their_due_time(maildefer, push, queue, tmp_path):
    other = create_queue(str(tmp_path / "other"))
    key = push()
    os.rename(f"{queue.new}/{key}", f"{queue.new}/{key},a=2,n=2")
    later = maildefer("push", queue.path, "--recipient=a@b.example", "--after=1h", stdin=MESSAGE).out.strip()
    stays = push(recipient="eve@c.example")
    moved = maildefer("queue", "move", queue.path, "--to", other.path, "--recipient=*@b.example")
    assert set(moved.out.split()) == {key, later}
    assert os.listdir(queue.new) == [stays]
    assert os.listdir(other.new) == [f"{key},h=1,n=3"]
    (name,) = os.listdir(other.later_new)
    assert EntryName.parse(name).due == int(later.partition(".")[0])


def test_a_unique_key_is_free_once_its_entry_has_left_the_queue(maildefer, queue, tmp_path):
    other = create_queue(str(tmp_path / "other"))
    push = ("push", queue.path, "--recipient=a@b.example", "--unique=front page")
    key = maildefer(*push, stdin=MESSAGE).out.strip()
    assert maildefer("queue", "move", queue.path, "--to", other.path, "--all").out.strip() == key
    fresh = maildefer(*push, stdin=MESSAGE).out.strip()
    assert fresh != key
    assert os.listdir(queue.new) == [fresh]


def test_what_is_no_other_queue_is_refused(maildefer, push, queue, tmp_path):
    key = push()
    assert maildefer("queue", "move", queue.path, "--to", queue.path, "--all").code == 2
    assert maildefer("queue", "move", queue.path, "--to", str(tmp_path / "none"), "--all").code == 1
    assert os.listdir(queue.new) == [key]


def test_an_entry_on_another_filesystem_stays_where_it_is(maildefer, push, queue, tmp_path):
    if os.stat("/dev/shm").st_dev == os.stat(queue.path).st_dev:
        pytest.skip("/dev/shm is on the same filesystem")
    key = push()
    elsewhere = create_queue(f"/dev/shm/maildefer-{os.getpid()}-other")
    try:
        ended = maildefer("queue", "move", queue.path, "--to", elsewhere.path, "--all")
    finally:
        shutil.rmtree(elsewhere.path)
    assert ended.code == 1
    assert "another filesystem" in ended.err
    assert os.listdir(queue.new) == [key]


# The shape of a queue


def test_a_queues_shape_counts_domains_by_age(maildefer, push, queue):
    push(), push(recipient="x@B.example"), push(recipient="y@c.example")
    aged(queue, push(), 15 * 60)
    aged(queue, push(recipient="y@c.example"), 10 * 86400)
    Path(queue.new, "1.other").write_bytes(MESSAGE)
    told = maildefer("queue", "shape", queue.path)
    rows = [line.split() for line in told.out.splitlines()]
    assert rows[0] == ["T", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"]
    assert rows[1] == ["TOTAL", "6", "3", "0", "1", "0", "0", "0", "0", "0", "0", "2"]
    assert rows[2] == ["b.example", "3", "2", "0", "1", "0", "0", "0", "0", "0", "0", "0"]
    assert [row[0] for row in rows[3:]] == ["c.example", "?"]
    records = maildefer("queue", "shape", queue.path, "--senders", "--json").records
    assert [(one["domain"], one["total"]) for one in records] == [("a.example", 5), ("?", 1)]


def test_an_empty_queue_has_an_empty_shape(maildefer, queue):
    assert maildefer("queue", "shape", queue.path).out.splitlines()[1].split() == ["TOTAL", *["0"] * 11]


def test_bounces_have_a_name_in_the_shape_and_domains_beyond_the_limit_are_counted(maildefer, push, queue):
    push(sender=""), push(sender="a@x.example"), push(sender="a@x.example")
    told = maildefer("queue", "shape", queue.path, "--senders", "--limit=1")
    assert told.out.split("\n")[2].startswith("x.example")
    assert "1 more domain" in told.err
    assert "MAILER-DAEMON" in maildefer("queue", "shape", queue.path, "-s").out
