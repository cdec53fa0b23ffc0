"""`explain`, from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maildefer.host.identity import this_host
from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import entries, record_keeping

MESSAGE = b"Message-ID: <1@a.example>\nSubject: x\n\nbody\n"


@pytest.fixture
def key(maildefer: Any, queue: Layout) -> str:
    pushed: str = maildefer(
        "push", queue.path, "--sender=ann@a.example", "--recipient=b@b.example", stdin=MESSAGE
    ).out
    pen = journal.journal_of(queue)
    assert pen is not None
    pen.record_note(pushed.strip(), {"outcome": "deferred", "reason": "\x1b[31m evil"})
    return pushed.strip()


def test_a_message_is_explained_by_its_key_and_by_what_is_known_of_it(
    maildefer: Any, queue: Layout, key: str
) -> None:
    ended = maildefer("explain", key[:20], "--queue", queue.path)
    assert ended.code == 0
    first, *lines = ended.out.splitlines()
    assert first == key
    for line, said in zip(lines, ("received", "accepted", "tried: deferred", "now waiting"), strict=True):
        assert said in line
    assert "id=<1@a.example>" in lines[0]
    assert "\x1b" not in ended.out
    assert maildefer("explain", "--sender=@a.example", "--queue", queue.path).out == ended.out
    assert maildefer("explain", "--recipient=b@b.example", "--queue", queue.path).out == ended.out


def test_it_is_told_to_programs_as_json(maildefer: Any, queue: Layout, key: str) -> None:
    records = maildefer("explain", key, "--queue", queue.path, "--json").records
    assert [one["event"] for one in records] == ["received", "accepted", "tried: deferred", "now waiting"]
    assert {one["key"] for one in records} == {key}
    assert records[0]["facts"]["to"] == "b@b.example"


def test_without_a_queue_those_of_the_project_are_looked_through(
    maildefer: Any, queue: Layout, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs("conf")
    with open("conf/settings.py", "w") as file:
        file.write(f"queues = {{{queue.path!r}: ['workers.x']}}\n")
    assert key in maildefer("explain", "--sender=@a.example").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Name a key"),
        (["nothing"], 1, "nothing is known of it"),
        (["--sender=eve@e.example"], 1, "nothing is known of it"),
        (["x", "--since=5y"], 2, "no age"),
    ],
)
def test_what_asks_for_nothing_that_there_is_is_told(
    maildefer: Any, queue: Layout, key: str, arguments: list[str], code: int, said: str
) -> None:
    ended = maildefer("explain", *arguments, "--queue", queue.path)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_where_no_journal_is_kept_it_is_told_how_to_begin_one(maildefer: Any, queue: Layout) -> None:
    record_keeping.end_journal(queue)
    assert "audit --on" in maildefer("explain", "17.x", "--queue", queue.path).err
    assert maildefer("explain", "17.x").code == 2, "no queue of a project is here"


@pytest.mark.parametrize(
    "written",
    [
        "queues = {PATH: handlers}",
        "queues: dict[str, list[str]] = {PATH: [*handlers, 'workers.x']}",
        "queues = {}\nqueues[PATH] = handlers",
        "queues = dict(computed)\nqueues[PATH] = ['workers.x']",
    ],
)
def test_the_queues_of_the_settings_are_known_whatever_their_handlers_are(
    maildefer: Any, queue: Layout, key: str, written: str
) -> None:
    """As in the settings of a new project, whose handlers are names; nothing of the project runs."""
    os.makedirs("conf")
    with open("conf/settings.py", "w") as file:
        file.write(f"handlers = compute()\n{written.replace('PATH', repr(queue.path))}\n")
    assert key in maildefer("explain", "--sender=@a.example").out
    assert "1 waiting" in maildefer("status").out


def test_a_queue_without_handlers_is_not_one_that_a_pool_should_serve(
    maildefer: Any, queue: Layout, key: str
) -> None:
    os.makedirs("conf")
    with open("conf/settings.py", "w") as file:
        file.write(f"queues = {{{queue.path!r}: []}}\n")
    assert "waiting" not in maildefer("status").out


def test_what_is_not_found_by_its_sender_is_said_to_be_unknown_for_so_long(
    maildefer: Any, queue: Layout, key: str
) -> None:
    ended = maildefer("explain", "--sender=eve@a.example", "--queue", queue.path)
    assert "in the last 7d: give another --since" in ended.err


def test_of_several_queues_each_event_has_its_own(
    maildefer: Any, queue: Layout, key: str, tmp_path: Path
) -> None:
    other = create_queue(str(tmp_path / "other"))
    journal.begin_journal(other)
    pen = journal.journal_of(other)
    assert pen is not None
    pen.record_end("ack", key)
    ended = maildefer("explain", key, "--queue", queue.path, "--queue", other.path)
    lines = [line.split() for line in ended.out.splitlines()[1:]]
    assert [queue.path in line for line in lines] == [True, True, True, False, True]
    assert lines[3][2:] == [other.path, "ended"]
    assert queue.path not in maildefer("explain", key, "--queue", queue.path).out


def test_a_queue_that_is_named_twice_tells_each_event_once(
    maildefer: Any, queue: Layout, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = maildefer("explain", key, "--queue", queue.path).out
    monkeypatch.chdir(os.path.dirname(queue.path))
    name = os.path.basename(queue.path)
    assert maildefer("explain", key, "--queue", f"./{name}/", "--queue", name).out.splitlines()[1:] == [
        line.replace(queue.path, name) for line in once.splitlines()[1:]
    ]
    os.symlink(name, "link")
    assert maildefer("explain", key, "--queue", name, "--queue", "link").out.count("accepted") == 1


def test_a_queue_that_cannot_be_looked_into_hides_no_other(
    maildefer: Any, queue: Layout, key: str, tmp_path: Path
) -> None:
    broken = create_queue(str(tmp_path / "broken"))
    shutil.rmtree(broken.new)
    Path(broken.new).touch()
    os.makedirs("conf")
    Path("conf/settings.py").write_text(
        f"queues = {{{broken.path!r}: ['workers.x'], {queue.path!r}: ['workers.y']}}\n"
    )
    ended = maildefer("explain", "--sender=@a.example")
    assert (ended.code, key in ended.out, broken.path in ended.err) == (0, True, True)
    assert maildefer("explain", "--sender=@a.example", "--queue", broken.path).code == 1


def test_a_key_is_not_taken_with_conditions_that_would_be_passed_over(
    maildefer: Any, queue: Layout, key: str
) -> None:
    assert maildefer("explain", key, "--sender=eve@a.example", "--queue", queue.path).code == 2


def test_a_commands_records_are_this_hosts_by_its_label(maildefer: Any, queue: Layout, key: str) -> None:
    """In a process of its own, in which nothing else has asked for the label."""
    command = [sys.executable, "-m", "maildefer", "dead", "delete", queue.path, key, "--yes"]
    found = entries.find(queue, key)
    os.makedirs(queue.dead_new, exist_ok=True)
    os.rename(found.path, f"{queue.dead_new}/{found.name}")
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    records = maildefer("explain", key, "--queue", queue.path, "--json").records
    assert (records[-1]["event"], records[-1]["host"]) == ("deleted", this_host().label)
