"""The public queue."""

from __future__ import annotations

import email
import errno
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import AddressRefused, EntryNotFound, NotAQueue, PermissionRefused, QueueMissing
from maildefer.mail import MailRequest, MailResponse
from maildefer.maildir import durable, scan
from maildefer.maildir import push as push_module
from maildefer.maildir.layout import create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.message.envelope import Envelope, split
from maildefer.queue import Queue, QueueError, SafeMaildir
from tests.support.queues import leave_synced

NEW_YEAR = datetime(2090, 1, 1, tzinfo=UTC)
DATA = b"From: header@example.org\nTo: other@example.org\nSubject: hello\n\nFrom the start\n\xff\x00\r\n"


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    (tmp_path / "run").mkdir()
    return Queue(str(tmp_path / "run" / "queue"))


def file_of(queue: Queue) -> bytes:
    (name,) = os.listdir(f"{queue.dir}/new")
    return Path(queue.dir, "new", name).read_bytes()


# push


def test_a_queue_is_made_when_it_is_absent(queue: Queue) -> None:
    assert {"tmp", "new", "cur", ".later", ".dead", ".maildefer"} <= set(os.listdir(queue.dir))


def test_a_folder_that_holds_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(NotAQueue):
        Queue(str(tmp_path))


def test_push_returns_the_key_under_which_the_entry_waits(queue: Queue) -> None:
    key = queue.push(DATA)
    assert os.listdir(f"{queue.dir}/new") == [key]
    assert queue.keys() == [key]


@pytest.mark.invariant(9)
def test_pushed_bytes_are_kept_as_they_are(queue: Queue) -> None:
    queue.push(DATA)
    assert file_of(queue) == DATA


@pytest.mark.invariant(9)
def test_bytes_pushed_with_an_envelope_lie_untouched_below_it(queue: Queue) -> None:
    key = queue.push(DATA, sender="Author@Example.org", recipient="post@osb.example")
    data = file_of(queue)
    envelope, offset = split(data, key)
    assert envelope == Envelope("Author@Example.org", "post@osb.example")
    assert data[offset:] == DATA


def test_an_empty_sender_is_the_null_sender(queue: Queue) -> None:
    key = queue.push(DATA, sender="", recipient="post@osb.example")
    assert split(file_of(queue), key)[0] == Envelope("", "post@osb.example")


def test_a_sender_without_a_recipient_is_refused(queue: Queue) -> None:
    with pytest.raises(AddressRefused):
        queue.push(DATA, sender="author@example.org")
    assert len(queue) == 0


def test_an_address_that_could_forge_a_line_is_refused(queue: Queue) -> None:
    with pytest.raises(AddressRefused):
        queue.push(DATA, sender="a@b", recipient="post@osb.example\nX-Forged: yes")
    assert os.listdir(f"{queue.dir}/tmp") == []


def test_text_is_pushed_as_utf_8_and_escaped_bytes_as_they_were(queue: Queue) -> None:
    queue.push("Subject: grüß\n\n" + os.fsdecode(b"\xff"))
    assert file_of(queue) == "Subject: grüß\n\n".encode() + b"\xff"


def test_a_message_of_the_email_package_is_pushed_without_mangling_its_text(queue: Queue) -> None:
    message = EmailMessage()
    message["Subject"] = "hello"
    message.set_content("From here on\n")
    queue.push(message)
    assert b"\nFrom here on\n" in file_of(queue)


def test_a_parsed_message_is_pushed_as_it_was_read(queue: Queue) -> None:
    queue.push(email.message_from_bytes(DATA))
    assert file_of(queue).startswith(b"From: header@example.org\nTo: other@example.org\n")


def test_a_response_is_pushed_as_the_text_that_would_be_sent(queue: Queue) -> None:
    response = MailResponse(To="a@example.org", From="b@example.org", Subject="hello", Body="text")
    queue.push(response)
    assert file_of(queue) == str(response).encode()


def test_anything_else_is_pushed_as_its_text(queue: Queue) -> None:
    class Note:
        def __str__(self) -> str:
            return "Subject: note\n\n"

    queue.push(Note())
    assert file_of(queue) == b"Subject: note\n\n"


@pytest.mark.invariant(9)
def test_a_request_goes_on_with_its_envelope_and_its_bytes(queue: Queue, tmp_path: Path) -> None:
    queue.push(DATA, sender="author@example.org", recipient="post@osb.example")
    _, request = queue.pop()
    assert request is not None
    second = Queue(str(tmp_path / "second"))
    key = second.push(request)
    envelope, offset = split(file_of(second), key)
    assert envelope == Envelope("author@example.org", "post@osb.example")
    assert file_of(second)[offset:] == DATA


def test_a_request_without_an_envelope_gets_none(queue: Queue) -> None:
    queue.push(MailRequest("peer", None, None, DATA))
    assert file_of(queue) == DATA


def test_the_null_sender_of_a_bounce_goes_on_as_the_null_sender(queue: Queue) -> None:
    key = queue.push(MailRequest("peer", "", "list@osb.example", DATA))
    assert split(file_of(queue), key)[0] == Envelope("", "list@osb.example")


def test_given_addresses_count_more_than_those_of_a_request(queue: Queue) -> None:
    key = queue.push(MailRequest("peer", "a@b", "c@d", DATA), recipient="index@osb.example")
    assert split(file_of(queue), key)[0] == Envelope("a@b", "index@osb.example")


def test_a_queue_that_went_away_is_missed(queue: Queue, tmp_path: Path) -> None:
    os.rename(queue.dir, tmp_path / "elsewhere")
    assert Queue(queue.dir).keys() == []  # named again, made again
    os.rename(queue.dir, tmp_path / "elsewhere2")
    with pytest.raises(QueueMissing):
        push_module.Pusher(queue.layout, host="host-0a1b2c").push(lambda stem: [DATA])


@pytest.mark.invariant(1)
def test_threads_that_push_at_once_share_directory_syncs(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each push returns only after a sync that began when its entry was in place."""
    at_work, go_on = threading.Event(), threading.Event()
    synced: list[set[str]] = []

    def sync(path: str, **system: object) -> None:
        seen = set(os.listdir(path))
        if not at_work.is_set():
            at_work.set()
            assert go_on.wait(60)
        synced.append(seen)

    monkeypatch.setattr("maildefer.maildir.durable.sync_directory", sync)
    returned: list[tuple[str, int]] = []

    def push() -> None:
        returned.append((Queue(queue.dir).push(DATA), len(synced)))

    first = threading.Thread(target=push)
    first.start()
    assert at_work.wait(60)
    others = [threading.Thread(target=push) for _ in range(8)]
    for thread in others:
        thread.start()
    wait_until(lambda: len(os.listdir(f"{queue.dir}/new")) == 9)
    go_on.set()
    for thread in [first, *others]:
        thread.join(60)
    assert len(returned) == 9
    assert len(synced) < 9
    for key, syncs in returned:
        assert any(key in seen for seen in synced[:syncs])


def test_a_child_after_a_fork_pushes_while_its_parent_syncs(queue: Queue) -> None:
    """In a process of its own, as a fork among threads is what the test is about."""
    code = f"""
import os, sys, threading
from maildefer.maildir import durable
from maildefer.queue import Queue
queue = Queue({queue.dir!r})
at_work = threading.Event()
real = durable.sync_directory
def hang(path, **system):
    at_work.set()
    threading.Event().wait()
durable.sync_directory = hang
threading.Thread(target=queue.push, args=(b"parent",), daemon=True).start()
at_work.wait()
if (pid := os.fork()) == 0:
    durable.sync_directory = real
    queue.push(b"child")
    os._exit(0)
status = os.waitpid(pid, 0)[1]
os._exit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert {Path(queue.dir, "new", name).read_bytes() for name in os.listdir(f"{queue.dir}/new")} == {
        b"parent",
        b"child",
    }


# pop


def test_pop_gives_key_and_message_and_takes_the_entry_away(queue: Queue) -> None:
    key = queue.push(DATA, sender="Author@example.org", recipient="Post@osb.example")
    popped, request = queue.pop()
    assert popped == key
    assert request is not None
    assert (request.From, request.To, request.Data) == ("author@example.org", "post@osb.example", DATA)
    assert (request.key, request.attempt) == (key, 1)
    assert len(queue) == 0
    assert os.listdir(f"{queue.dir}/cur") == []


def test_pop_gives_what_was_durable_before_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "keeps_order", lambda device: True)
    key = leave_synced(create_queue(str(tmp_path / "queue")))
    popped, _ = Queue(str(tmp_path / "queue")).pop()
    assert popped == key


def test_pop_of_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert queue.pop() == (None, None)


def test_pop_takes_what_a_mail_reader_has_moved_to_cur(queue: Queue) -> None:
    key = queue.push(DATA)
    os.rename(f"{queue.dir}/new/{key}", f"{queue.dir}/cur/{key}:2,S")
    assert len(queue) == 1
    assert queue.pop()[0] == key


def test_pop_leaves_what_others_have_claimed(queue: Queue) -> None:
    key = queue.push(DATA)
    os.rename(f"{queue.dir}/new/{key}", f"{queue.dir}/cur/{key},a=1:1,host-0a1b2c-17-abcdef012345.18.1")
    assert queue.pop() == (None, None)
    assert queue.keys() == []


@pytest.mark.slow
def test_no_entry_is_popped_twice(queue: Queue) -> None:
    keys = {queue.push(DATA) for _ in range(200)}
    popped: list[str] = []

    def drain() -> None:
        mine = Queue(queue.dir)
        while (key := mine.pop()[0]) is not None:
            popped.append(key)

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(popped) == sorted(keys)


def test_what_was_taken_back_before_the_unlink_is_not_handed_out(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = queue.push(DATA)
    from maildefer.maildir import pop

    real = pop.Popped.read

    def read_slowly(self: pop.Popped, *limit: int) -> bytes | None:
        data = real(self, *limit)
        os.rename(self.path, f"{queue.dir}/new/{key},n=1")  # a keeper took us for dead
        monkeypatch.undo()
        return data

    monkeypatch.setattr(pop.Popped, "read", read_slowly)
    seen = [queue.pop()[0], queue.pop()[0]]
    assert seen.count(key) == 1


def test_a_directory_among_the_entries_becomes_a_dead_letter_with_its_reason(queue: Queue) -> None:
    os.mkdir(f"{queue.dir}/new/directory")
    key = queue.push(DATA)
    assert queue.pop()[0] == key
    assert queue.pop() == (None, None)
    assert os.listdir(f"{queue.dir}/.dead/new") == ["directory,n=1"]
    assert os.listdir(f"{queue.dir}/.maildefer/dead") == ["directory,n=1.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_entry_that_may_not_be_read_is_put_back(queue: Queue) -> None:
    key = queue.push(DATA)
    os.chmod(f"{queue.dir}/new/{key}", 0)
    with pytest.raises(PermissionRefused):
        queue.pop()
    assert queue.keys() == [key]


def test_undecodable_mail_is_popped_as_bytes(queue: Queue) -> None:
    queue.push(b"\xff\xfe\x00")
    request = queue.pop()[1]
    assert request is not None
    assert request.Data == b"\xff\xfe\x00"


@pytest.mark.parametrize("size", [101, 10_000])
def test_a_message_over_the_limit_goes_to_the_oversize_queue(tmp_path: Path, size: int) -> None:
    queue = Queue(str(tmp_path / "q"), pop_limit=100, oversize_dir=str(tmp_path / "big"))
    big = queue.push(b"x" * size, sender="a@b", recipient="c@d")
    small = queue.push(b"x" * 100, sender="a@b", recipient="c@d")
    assert queue.oversize_dir == str(tmp_path / "big" / "new")
    assert queue.oversize(big) == (True, f"{queue.dir}/new/{big}")
    assert queue.oversize(small) == (False, f"{queue.dir}/new/{small}")
    assert queue.pop()[0] == small
    assert queue.pop() == (None, None)
    assert Queue(str(tmp_path / "big")).keys() == [big]


def test_a_message_over_the_limit_is_a_dead_letter_where_there_is_no_oversize_queue(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "q"), pop_limit=100)
    key = queue.push(b"x" * 101)
    assert queue.pop() == (None, None)
    assert os.listdir(f"{queue.dir}/cur") == []
    assert queue.get(key).Data == b"x" * 101


def test_nothing_is_oversize_without_a_limit(queue: Queue) -> None:
    assert queue.oversize(queue.push(DATA)) == (False, None)


# the other calls


def test_get_leaves_the_message_where_it_is(queue: Queue) -> None:
    key = queue.push(DATA, sender="a@b", recipient="c@d")
    request = queue.get(key)
    assert (request.Peer, request.To, request.Data) == (queue.dir, "c@d", DATA)
    assert queue.keys() == [key]


def test_an_unknown_key_is_a_key_error(queue: Queue) -> None:
    for call in (queue.get, queue.remove):
        with pytest.raises(KeyError):
            call("123.M1P1Q1R1.host")
        with pytest.raises(EntryNotFound):
            call("123.M1P1Q1R1.host")


def test_a_key_stays_good_when_the_entry_has_been_returned(queue: Queue) -> None:
    key = queue.push(DATA)
    os.rename(f"{queue.dir}/new/{key}", f"{queue.dir}/new/{key},a=3,n=3")
    assert queue.keys() == [key]
    assert queue.get(key).Data == DATA


def test_remove_deletes_the_message(queue: Queue) -> None:
    queue.remove(queue.push(DATA))
    assert queue.count() == len(queue) == 0


def test_clear_deletes_what_waits(queue: Queue) -> None:
    for _ in range(3):
        queue.push(DATA)
    assert queue.count() == len(queue) == 3
    queue.clear()
    assert queue.count() == 0


def test_a_queue_error_carries_its_data() -> None:
    error = QueueError("broken", 17)
    assert (str(error), error.data) == ("broken", 17)


def test_mbox_is_the_standard_librarys_maildir(queue: Queue) -> None:
    key = queue.push(DATA)
    assert queue.mbox.get_bytes(key)[:20] == DATA[:20]


def test_a_safe_maildir_does_not_tell_the_hosts_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = os.uname().nodename
    queue = Queue(str(tmp_path / "q"), safe=True)
    assert isinstance(queue.mbox, SafeMaildir)
    key = queue.mbox.add(DATA)
    assert name not in key
    assert queue.get(key).Data.startswith(b"From: header@example.org")  # type: ignore[arg-type]
    for pushed in (queue.push(DATA), queue.push(DATA, recipient="b@example.org")):
        assert pushed.partition(",")[0].rpartition(".")[2] == key.partition(",")[0].rpartition(".")[2]
        assert queue.get(pushed).Data == DATA
    assert name in Queue(str(tmp_path / "q")).push(DATA)


def test_importing_the_queue_brings_no_heavy_module() -> None:
    code = "import sys, maildefer.queue; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout.split()
    heavy = {"email", "mailbox", "structlog", "smtplib", "socket", "typing_extensions", "asyncio", "jinja2"}
    assert heavy.isdisjoint(loaded)


def test_a_foreign_maildir_is_taken_as_it_is(tmp_path: Path) -> None:
    for folder in ("tmp", "new", "cur"):
        (tmp_path / "mail" / folder).mkdir(parents=True)
    (tmp_path / "mail" / "new" / "1700000000.1_2.host").write_bytes(
        b"Return-Path: <a@b>\nDelivered-To: c@d\n" + DATA
    )
    key, request = Queue(str(tmp_path / "mail")).pop()
    assert key == "1700000000.1_2.host"
    assert request is not None
    assert (request.From, request.To) == ("a@b", "c@d")


def test_the_pusher_of_a_queue_is_shared_by_all_its_objects(tmp_path: Path) -> None:
    create_queue(str(tmp_path / "q"))
    Queue(str(tmp_path / "q")), Queue(f"{tmp_path}/./q/")
    from maildefer.queue import _pushers

    assert [path for path in _pushers if path.startswith(str(tmp_path))] == [str(tmp_path / "q")]


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    waiting = threading.Event()
    for _ in range(int(seconds * 200)):
        if condition():
            return
        waiting.wait(0.005)
    raise AssertionError("it did not happen in time")


def test_what_is_no_message_is_refused_and_the_error_says_what_to_give(tmp_path: Path) -> None:
    class Letter:
        def __str__(self) -> str:
            return "Subject: own\n\n"

    queue = Queue(str(tmp_path / "queue"))
    file = tmp_path / "msg.eml"
    file.write_bytes(b"Subject: x\n\n")
    with open(file, "rb") as opened:
        for message in (opened, io.StringIO("Subject: x\n\n")):
            with pytest.raises(TypeError, match=r"is no message: give what its \.read\(\) returns"):
                queue.push(message)
        assert opened.tell() == 0
    with pytest.raises(TypeError, match="PosixPath is no message: give what the file holds"):
        queue.push(file)
    for other in (None, 5, {}, ["a"], object(), Letter, ValueError("x"), True):
        with pytest.raises(TypeError, match="is no message: give bytes, a str"):
            queue.push(other, sender="a@x", recipient="b@x")
    assert queue.count() == 0
    queue.push(Letter())
    queue.push("")
    queue.push(b"")
    assert queue.count() == 3


def test_a_push_says_which_part_of_the_envelope_is_wrong(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "q"))
    with pytest.raises(AddressRefused, match="needs a recipient beside it"):
        queue.push("Subject: x\n\n", sender="a@b")
    wrong: list[Any] = [["a@b"], 5]
    for recipient in wrong:
        with pytest.raises(TypeError, match="give one address, and push once for each"):
            queue.push("Subject: x\n\n", recipient=recipient)
    for sender in [*wrong, b"a@b"]:
        with pytest.raises(TypeError, match="give one address"):
            queue.push(b"Subject: x\n\n", sender=sender, recipient="c@d")
    assert queue.count() == 0


# later


def later_names(queue: Queue) -> list[str]:
    return os.listdir(f"{queue.dir}/.later/new")


def test_a_message_pushed_for_later_waits_until_it_is_due(queue: Queue) -> None:
    before = time.time()
    key = queue.push(DATA, sender="", recipient="post@osb.example", after=60)
    (name,) = later_names(queue)
    due = EntryName.parse(name).due
    assert name == f"{key},d={due}"
    assert due is not None
    assert before + 59 <= due <= time.time() + 62
    assert queue.keys() == []
    assert queue.get(key).Data == DATA


def test_the_received_line_of_a_message_for_later_has_the_time_of_its_push(queue: Queue) -> None:
    key = queue.push(DATA, recipient="post@osb.example", at=datetime(2090, 1, 1, tzinfo=UTC))
    (name,) = later_names(queue)
    data = Path(queue.dir, ".later/new", name).read_bytes()
    assert split(data, key)[1] > 0
    assert f" {time.gmtime().tm_year} ".encode() in data.split(b"\n")[2]
    assert b" 2090 " not in data


def test_a_time_of_another_zone_is_the_same_moment(queue: Queue) -> None:
    queue.push(DATA, at=datetime(2090, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1))))
    assert EntryName.parse(later_names(queue)[0]).due == 3786912000


@pytest.mark.parametrize("given", [{"after": -1}, {"at": datetime(2090, 1, 1)}, {"after": 1, "at": NEW_YEAR}])
def test_nothing_is_pushed_at_what_is_no_time(queue: Queue, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give"):
        queue.push(DATA, **given)
    assert [files for _, _, files in os.walk(queue.dir) if any(not f.startswith("f") for f in files)] == [
        ["maildirfolder"],
        ["maildirfolder"],
    ]


def test_what_waits_can_be_cancelled_and_what_was_cancelled_is_gone(queue: Queue) -> None:
    key, other = queue.push(DATA, after=60), queue.push(DATA)
    assert queue.cancel(key)
    assert queue.cancel(other)
    assert not queue.cancel(key)
    with pytest.raises(EntryNotFound):
        queue.get(key)


def test_what_waits_can_be_rescheduled(queue: Queue) -> None:
    key = queue.push(DATA, after=60)
    queue.reschedule(key, at=NEW_YEAR)
    assert later_names(queue) == [f"{key},n=1,d={int(NEW_YEAR.timestamp())}"]
    queue.reschedule(key, after=0)
    assert os.listdir(f"{queue.dir}/new") == [f"{key},n=2"]
    with pytest.raises(TypeError, match="give after=… or at=…"):
        queue.reschedule(key)
    with pytest.raises(EntryNotFound):
        queue.reschedule("1.x", after=5)


@pytest.mark.parametrize("key", [None, 5, b"key", ["key"]])
def test_what_is_no_key_is_a_type_error_that_says_so(queue: Queue, key: Any) -> None:
    queue.push(DATA)
    for call in (queue.cancel, lambda key: queue.reschedule(key, after=5), queue.get, queue.remove):
        with pytest.raises(TypeError, match="is no key of an entry: give the text that `push`"):
            call(key)
    assert queue.count() == 1


def test_a_push_of_a_unique_key_that_has_not_ended_returns_the_key_it_found(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    first = queue.push("Subject: one\n\n", unique="order-17")
    second = queue.push("Subject: two\n\n", unique="order-17", after=60)
    assert (first.is_new, second.is_new) == (True, False)
    assert second == first
    assert queue.keys() == [first]
    queue.remove(first)
    assert queue.push("Subject: three\n\n", unique="order-17").is_new


def test_a_unique_key_and_a_due_time_go_together(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    key = queue.push("Subject: one\n\n", unique="order-17", after=3600)
    assert queue.keys() == []
    assert queue.push("Subject: two\n\n", unique="order-17") == key
    assert queue.cancel(key)
    assert queue.push("Subject: three\n\n", unique="order-17").is_new


def test_threads_that_push_one_unique_key_store_one_entry(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    with ThreadPoolExecutor(8) as executor:
        keys = list(executor.map(lambda number: queue.push(f"{number}", unique="order-17"), range(64)))
    assert len(set(keys)) == 1
    assert sum(key.is_new for key in keys) == 1
    assert queue.count() == 1


@pytest.mark.parametrize("unique", ["", "x" * (1 << 20)])
def test_an_empty_unique_key_and_one_of_a_megabyte_are_refused(tmp_path: Path, unique: str) -> None:
    queue = Queue(str(tmp_path / "queue"))
    with pytest.raises(ValueError, match="the unique key"):
        queue.push("x", unique=unique)
    assert queue.count() == 0


def test_a_queue_that_keeps_no_hostname_keeps_none_with_a_unique_key_either(tmp_path: Path) -> None:
    key = Queue(str(tmp_path / "queue"), safe=True).push("x", unique="order-17")
    assert os.uname().nodename not in key


@pytest.mark.slow
def test_a_push_may_have_a_priority(queue: Queue) -> None:
    keys = [queue.push(DATA, priority=priority) for priority in ("low", "normal", "high")]
    assert [",p=low," in keys[0], ",p=" in keys[1], ",p=high," in keys[2]] == [True, False, True]
    with pytest.raises(ValueError, match="priority='urgent': give one of high, normal, low"):
        queue.push(DATA, priority="urgent")
    for wrong in (["low"], 5, None, {"low": 1}):
        with pytest.raises(ValueError, match=r"priority=.*: give one of high, normal, low"):
            queue.push(DATA, priority=wrong)  # type: ignore[call-overload]
    with queue.consumer() as consumer:
        claimed = []
        for _ in keys:
            claim = consumer.claim(60)
            assert claim is not None
            claimed.append(claim.key)
            claim.ack()
    assert claimed == keys[::-1]


def test_a_unique_push_may_have_a_priority_and_a_due_time(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    first = queue.push("Subject: one\n\n", unique="order-17", priority="high")
    assert ",p=high," in first
    assert "priorities" in os.listdir(queue.layout.control)
    assert queue.push("Subject: two\n\n", unique="order-17", priority="low") == first
    later = queue.push("Subject: three\n\n", unique="order-18", priority="low", after=60)
    assert ",t=" in later
    assert ",p=low," in later


def test_a_unique_key_and_a_priority_go_together(tmp_path: Path) -> None:
    queue = Queue(str(tmp_path / "queue"))
    low = queue.push("Subject: one\n\n", unique="a", priority="low")
    high = queue.push("Subject: two\n\n", unique="b", priority="high")
    assert [scan.priority_of(key) for key in (low, high)] == ["low", "high"]
    assert os.path.exists(f"{queue.layout.control}/{scan.PRIORITY_MARK}")
    assert not queue.push("Subject: three\n\n", unique="a").is_new


def test_a_queue_that_may_not_be_listed_is_named(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> Iterator[FoundEntry]:
        raise PermissionError(errno.EACCES, "Permission denied", "new")

    monkeypatch.setattr(entries, "list_entries", refused)
    for call in (queue.keys, queue.count):
        with pytest.raises(PermissionRefused, match=rf"^{queue.dir}/new: .* permission to read the queue"):
            call()
