"""`dead edit`: a copy is edited and requeued; neither it nor the dead letter is lost, wherever the command dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from maildefer.cli.entries import editing
from maildefer.handling.tasks.call import Call, call_in, composed
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.operator import entries
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import write_reason
from maildefer.maildir.system import SYSTEM
from maildefer.message.envelope import split
from maildefer.queue import Queue
from tests.support.deaths import Death, Mortal
from tests.support.queues import LABEL

ONLY_TOP = b"Return-Path: <>\nDelivered-To: x@y\n\n"
MESSAGE = b"Subject: odrer\r\n\r\nb\xf6dy"


@pytest.fixture(autouse=True)
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are edited."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.delenv("VISUAL", raising=False)
    return folder


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have this Python code be the editor: `data` is the file's bytes, before and after."""

    def write(code: str) -> None:
        script = tmp_path / "my editor.py"
        script.write_text(
            "import os, sys\npath = sys.argv[1]\ndata = open(path, 'rb').read()\n"
            f"{code}\nopen(path, 'wb').write(data)\n"
        )
        monkeypatch.setenv("EDITOR", f"{sys.executable} '{script}'")

    return write


def bury(layout: Layout, key: str) -> EntryName:
    dead = EntryName(key=key, failures=20, attempts=20, returns=3)
    write_reason(layout, dead, "no route", {}, host="h")
    os.rename(f"{layout.new}/{key}", f"{layout.dead_new}/{dead.waiting()}")
    return dead


@pytest.fixture
def dead(queue: Layout) -> EntryName:
    return bury(queue, Queue(queue.path).push(MESSAGE, sender="a@x.test", recipient="odrer@x.test"))


def waiting(queue: Layout) -> list[tuple[Any, bytes]]:
    found = []
    for name in os.listdir(queue.new):
        data = Path(queue.new, name).read_bytes()
        envelope, offset = split(data, name)
        found.append((envelope, data[offset:]))
    return found


def files(folder: Path) -> list[bytes]:
    return [one.read_bytes() for one in folder.rglob("*") if one.is_file()]


def test_what_was_edited_is_requeued_with_its_counters_anew_and_the_dead_letter_stays(
    queue: Layout, dead: EntryName, editor: Any, maildefer: Any, copies: Path
) -> None:
    before = Path(queue.dead_new, dead.waiting()).read_bytes()
    editor("data = data.replace(b'odrer', b'order') + b'!'")
    ended = maildefer("dead", "edit", queue.path, dead.key[:20])
    [new] = os.listdir(queue.new)
    assert (ended.code, ended.out) == (0, f"{dead.key}  {new}\n")
    assert waiting(queue) == [(("a@x.test", "order@x.test"), b"Subject: order\r\n\r\nb\xf6dy!")]
    assert EntryName.parse(new).attempts == 0
    assert Path(queue.dead_new, dead.waiting()).read_bytes() == before
    assert "reason: no route" in maildefer("dead", "show", queue.path, dead.key).out
    assert list(copies.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "said", "kept"),
    [
        ("", "nothing was changed", []),
        ("data += b'\\n'", "nothing was changed", []),
        ("sys.exit(3)", "ended with 3", []),
        ("open(path, 'wb').write(b'half'); os._exit(1)", "ended with 1", [b"half"]),
        ("data = b''", "first two lines", [b""]),
        (
            "data = data.partition(b'\\n')[2]",
            "first two lines",
            [b"Delivered-To: odrer@x.test\r\n" + MESSAGE],
        ),
        (f"data = {ONLY_TOP!r}", "is empty", [ONLY_TOP]),
        ("data = data.replace(b'odrer@', b'a b@')", "bare spaces", None),
        ("os.unlink(path); os._exit(0)", "No such file", []),
    ],
)
def test_what_can_not_be_requeued_is_refused_and_what_was_changed_is_in_a_file(
    queue: Layout, dead: EntryName, editor: Any, maildefer: Any, copies: Path, code: str, said: str, kept: Any
) -> None:
    editor(code)
    ended = maildefer("dead", "edit", queue.path, dead.key)
    assert (ended.code, ended.out, waiting(queue)) == (1, "", [])
    assert said in ended.err
    assert os.listdir(queue.dead_new) == [dead.waiting()]
    assert kept is None or files(copies) == kept
    assert ("what was edited is in" in ended.err) == (kept != [])


@pytest.mark.parametrize("editor_command", ["/nowhere/vi", "'unclosed"])
def test_an_editor_that_can_not_be_run_is_told(
    queue: Layout, dead: EntryName, maildefer: Any, copies: Path, monkeypatch: Any, editor_command: str
) -> None:
    monkeypatch.setenv("VISUAL", editor_command)
    ended = maildefer("dead", "edit", queue.path, dead.key)
    assert (ended.code, list(copies.iterdir())) == (1, [])
    assert "set VISUAL or EDITOR" in ended.err


def test_what_somebody_else_has_requeued_meanwhile_is_not_pushed_twice(
    queue: Layout, dead: EntryName, editor: Any, maildefer: Any, copies: Path
) -> None:
    editor(f"os.rename({queue.dead_new!r} + '/' + {dead.waiting()!r}, {queue.new!r} + '/1.x'); data += b'!'")
    assert maildefer("dead", "edit", queue.path, dead.key).code == 1
    assert os.listdir(queue.new) == ["1.x"]
    assert len(files(copies)) == 1


def test_an_edited_call_is_signed_for_its_new_entry(queue: Layout, editor: Any, maildefer: Any) -> None:
    call = Call(task="later", args=[5], kwargs={})
    compose = composed(call, "later@task.invalid", queue.path, LABEL)
    dead = bury(queue, Pusher(queue, host=LABEL).push(compose))
    editor("data = data.replace(b'[5]', b'[77]')")
    assert maildefer("dead", "edit", queue.path, dead.key).code == 0
    [new] = os.listdir(queue.new)
    data = Path(queue.new, new).read_bytes()
    assert call_in(data[split(data, new)[1] :], queue.path, new).args == [77]


def all_of(queue: Layout) -> list[bytes]:
    """Every entry that waits, after whoever pushes the unique key next has done what is left."""
    Queue(queue.path).push(b"another", unique="17", recipient="z@x.test")
    return [data for _, data in waiting(queue)]


@pytest.mark.slow
@pytest.mark.invariant(2)
@pytest.mark.invariant(12)
@pytest.mark.parametrize("unique", [None, "17"])
@pytest.mark.parametrize("before", [True, False])
def test_neither_is_lost_wherever_the_command_dies(
    queue: Layout, editor: Any, copies: Path, tmp_path: Path, unique: str | None, before: bool
) -> None:
    options: Any = {} if unique is None else {"unique": unique}
    key = Queue(queue.path).push(MESSAGE, sender="a@x.test", recipient="b@x.test", **options)
    if unique is not None:  # as its burial does
        os.unlink(f"{queue.control}/unique/{key.partition(',q=')[2].partition(',')[0]}/{key}")
    dead = bury(queue, key)
    ran = tmp_path / "ran"
    editor(f"data = data.replace(b'odrer', b'order'); open({str(ran)!r}, 'w')")
    edited = MESSAGE.replace(b"odrer", b"order")
    step, done = 0, False
    while not done:
        mortal = Mortal(SYSTEM, step, before=before)
        found = entries.find(queue, dead.key, ("dead",))
        try:
            editing.edit(queue, found, system=mortal.system)
            done = True
        except Death:
            step += 1
        assert os.listdir(queue.dead_new) == [dead.waiting()]
        there = [data for data in all_of(queue) if data == edited]
        in_file = any(edited in one for one in files(copies))
        assert len(there) == 1 or (not there and in_file == ran.exists())
        ran.unlink(missing_ok=True)
        for folder in (queue.new, f"{queue.control}/unique", str(copies), queue.tmp):
            empty(folder)
    assert step > 10


def empty(folder: str) -> None:
    for path, folders, names in os.walk(folder, topdown=False):
        for name in names:
            os.unlink(f"{path}/{name}")
        for name in folders:
            os.rmdir(f"{path}/{name}")
