"""`maildefer outgoing`: what waits for which destination, and what is tried at once."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from pathlib import Path

import pytest

from maildefer.cli.commands import outgoing as commands
from maildefer.errors import NoSpace
from maildefer.maildir.due import MountClock
from maildefer.maildir.journal import begin_journal, journal_of
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.operator import schedule
from maildefer.maildir.push import Pusher
from maildefer.maildir.upkeep.closures import LONGEST_SECONDS, Closures
from maildefer.message.envelope import block
from tests.cli.conftest import Maildefer

SETTINGS = """
queues = {"run/queue": ["workers.x"], "run/outgoing": ["maildefer.handlers.outgoing"]}
outgoing_config = {"host": None}
"""


@pytest.fixture
def project() -> Path:
    here = Path.cwd()
    (here / "conf").mkdir()
    (here / "conf" / "__init__.py").touch()
    (here / "conf" / "settings.py").write_text(SETTINGS)
    return here


@pytest.fixture
def home(project: Path) -> Layout:
    return create_queue(str(project / "run/queue"))


@pytest.fixture
def queue(project: Path) -> Layout:
    return create_queue(str(project / "run/outgoing"))


def push(queue: Layout, recipient: str, due: int | None = None) -> str:
    key = Pusher(queue, host="test").push(
        lambda stem: (block(stem, "s@x", recipient, host="test", when=0.0, via="push"), b"Subject: s\n\n")
    )
    if due is not None:
        schedule.reschedule(queue, key, due, host="test")
    return key


def close(home: Layout, name: str, words: str = "Connection refused (mx.c.example)") -> None:
    Closures(home, now=time.time).close(name, words)


def stems(folder: str) -> set[str]:
    return {one.name.partition(",")[0] for one in Path(folder).iterdir()}


def test_each_destination_is_shown_with_what_waits_and_why(
    maildefer: Maildefer, queue: Layout, home: Layout
) -> None:
    push(queue, "ann@b.example")
    later = int(time.time()) + 300
    for name in ("ann", "bob"):
        push(queue, f"{name}@C.example", later)
    close(home, "c.example")
    down, up = map(json.loads, maildefer("outgoing", "--json").out.splitlines())
    assert (up["destination"], up["waiting"], up["next"]) == ("b.example", 1, None)
    assert (down["destination"], down["waiting"], down["failures"]) == ("c.example", 2, 1)
    assert down["last_words"] == "Connection refused (mx.c.example)"
    assert 50 < down["next"] - time.time() < 70
    _, first, second = maildefer("outgoing").out.splitlines()
    assert first.startswith("c.example    2 ")
    assert first.endswith("Connection refused (mx.c.example)")
    assert "down for" in first
    assert second.split()[:2] == ["b.example", "1"]


def test_a_server_that_puts_mail_off_is_shown_with_its_last_words(
    maildefer: Maildefer, queue: Layout, home: Layout
) -> None:
    begin_journal(queue)
    key = push(queue, "ann@b.example")
    os.rename(f"{queue.new}/{key}", f"{queue.later_new}/{key},a=1,d={int(time.time()) + 300}")
    told = journal_of(queue)
    assert told is not None
    told.record_note(
        key, {"outcome": "deferred", "reason": "ann@b.example: 450 4.2.0 greylisted (mx.b.example)"}
    )
    _, line = maildefer("outgoing").out.splitlines()
    assert re.search(r"up +in .* +ann@b.example: 450 4.2.0 greylisted \(mx.b.example\)$", line)


def test_what_is_down_and_left_is_shown_as_long_as_anything_waits_for_it(
    maildefer: Maildefer, queue: Layout, home: Layout
) -> None:
    push(queue, "ann@c.example")
    closures = Closures(home, now=lambda: time.time() - 3 * LONGEST_SECONDS)
    for name in ("c.example", "left.example"):
        closures.close(name, "no")
    [told] = map(json.loads, maildefer("outgoing", "--json").out.splitlines())
    assert (told["destination"], told["last_words"]) == ("c.example", "no")


def test_what_is_down_is_shown_where_nothing_can_be_written(
    maildefer: Maildefer, queue: Layout, home: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk refuses the file by which the mount's time is told."""
    push(queue, "ann@c.example")
    close(home, "c.example")

    def full(layout: Layout) -> MountClock:
        raise NoSpace(layout.tmp, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))

    monkeypatch.setattr(commands, "clock_of", full)
    [down] = map(json.loads, maildefer("outgoing", "--json").out.splitlines())
    assert (down["destination"], down["failures"]) == ("c.example", 1)


def test_what_strangers_have_said_forges_no_line(maildefer: Maildefer, queue: Layout, home: Layout) -> None:
    close(home, "c.example", "\x1b[2J\nb.example  0")
    assert len(maildefer("outgoing").out.splitlines()) == 2


@pytest.mark.slow
def test_a_destination_is_tried_at_once_with_what_waits_for_it(
    maildefer: Maildefer, queue: Layout, home: Layout
) -> None:
    later = int(time.time()) + 300
    waits, other = push(queue, "ann@c.example", later), push(queue, "ann@b.example", later)
    held = push(queue, "bob@c.example")
    assert maildefer("queue", "hold", str(queue.path), held).code == 0
    close(home, "c.example")
    ended = maildefer("outgoing", "--retry", "C.Example")
    assert (ended.code, ended.out) == (0, "c.example is tried at once\n")
    assert "1 deferred message is tried at once" in ended.err
    assert stems(queue.new) == {waits.partition(",")[0]}
    assert stems(queue.later_new) == {other.partition(",")[0], held.partition(",")[0]}
    assert Closures(home, now=time.time).seconds_closed("c.example") == 0.0


def test_a_destination_for_which_nothing_waits_is_an_error(maildefer: Maildefer, queue: Layout) -> None:
    ended = maildefer("outgoing", "--retry", "c.example")
    assert ended.code == 1
    assert "nothing waits for c.example" in ended.err


def test_a_destination_that_is_empty_is_refused(maildefer: Maildefer, queue: Layout) -> None:
    push(queue, "ann@c.example", int(time.time()) + 300)
    ended = maildefer("outgoing", "--retry", "")
    assert ended.code == 2
    assert "A destination is empty" in ended.err


def test_a_destination_of_former_settings_counts_as_down_no_more_when_it_is_tried(
    maildefer: Maildefer, queue: Layout, home: Layout
) -> None:
    push(queue, "ann@b.example")
    for name in ("mx.former.example:25", "b.example"):
        close(home, name)
    tried = maildefer("outgoing", "--retry", "mx.former.example:25")
    assert "counts as down no more" in tried.out
    assert [one.name for one in Closures(home, now=time.time).records()] == ["b.example"]


def test_before_anything_was_sent_nothing_waits(maildefer: Maildefer, project: Path) -> None:
    ended = maildefer("outgoing")
    assert (ended.code, ended.out) == (0, "")
    assert "nothing waits to be sent" in ended.err


def test_a_project_without_such_a_queue_is_told_what_to_add(maildefer: Maildefer, project: Path) -> None:
    (project / "conf" / "settings.py").write_text('queues = {"run/queue": ["workers.x"]}\n')
    ended = maildefer("outgoing")
    assert ended.code == 78
    assert "maildefer.handlers.outgoing" in ended.err
