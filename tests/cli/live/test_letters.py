from __future__ import annotations

import os
import subprocess

import pytest

from maildefer.cli.live import letters
from maildefer.cli.live.letters import entry_page, folder_page, shell_line
from maildefer.errors import EntryNotFound
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.reasons import write_reason
from maildefer.queue import Queue
from tests.cli.conftest import Maildefer

HOSTILE = "<script>alert(1)</script> \u202e 'quoted' $(id) \x1b[31m"


def bury(queue: Layout, reason: str, text: bytes = b"Subject: x\n\nhello\n") -> str:
    key = Queue(queue.path).push(text, sender="a@b.example", recipient="c@d.example")
    dead = EntryName.parse(key).returned()
    write_reason(queue, dead, reason, {"handler": "shop.ORDER"}, host="h")
    os.rename(f"{queue.new}/{key}", f"{queue.dead_new}/{dead.waiting()}")
    return key


def test_dead_letters_are_counted_by_reason_with_the_command_that_tries_them_again(queue: Layout) -> None:
    keys = [bury(queue, why) for why in ("no route", "KeyError: 'x'", "no route")]
    found = folder_page(queue.path, "run/queue", "dead", None)
    assert [(text, number) for text, number, _ in found.reasons] == [("no route", 2), ("KeyError: 'x'", 1)]
    assert found.reasons[0][2] == "maildefer dead requeue '--reason-is=no route' run/queue"
    assert {line.key for line in found.lines} == set(keys)
    only = folder_page(queue.path, "run/queue", "dead", "no route")
    assert {line.key for line in only.lines} == {keys[0], keys[2]}


@pytest.mark.parametrize(
    "reason", ["e\0zz", "two\nlines", "\x1b[31mred", "  \n", "a" * 300, "no route in the table", "No route"]
)
def test_the_command_of_a_reason_is_for_what_was_counted_and_for_nothing_else(
    maildefer: Maildefer, queue: Layout, reason: str
) -> None:
    """A sender may choose the reason, and must not choose by it which other letters are tried again."""
    key = bury(queue, reason)
    others = ["no route", "e", "two lines", "red", "a" * 199, "unknown host"]
    for other in others:
        bury(queue, other)
    [command] = [
        line
        for text, _, line in folder_page(queue.path, queue.path, "dead", None).reasons
        if text not in others
    ]
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], stdout=subprocess.PIPE, check=True)
    assert maildefer(*printed.stdout.decode().split("\0")[1:-1]).out.split() == [key]
    assert len(os.listdir(queue.dead_new)) == len(others)


def test_reasons_are_read_for_a_second_and_it_is_said_of_how_many(
    queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        bury(queue, "no route")
    monkeypatch.setattr(letters, "_MOST_READ", 2)
    found = folder_page(queue.path, "run/queue", "dead", None)
    assert (found.of, found.read, found.reasons[0][1]) == (3, 2, 2)


def test_an_entry_is_shown_with_its_reason_and_the_commands_for_its_folder(queue: Layout) -> None:
    key = bury(queue, "no route", b"Subject: x\r\n\r\n\xff<b>\r\n")
    page = entry_page(queue.path, "run/queue", key)
    assert page.folder == "dead"
    assert page.commands[0] == f"maildefer dead requeue run/queue {key}"
    assert ("reason", "no route") in page.facts
    assert page.text.endswith("\n\\xff<b>\n")


def test_of_a_long_message_the_beginning_is_shown(queue: Layout) -> None:
    page = entry_page(queue.path, "q", bury(queue, "no route", b"Subject: x\n\n" + b"a" * 100_000))
    assert len(page.text) == 64 << 10
    assert page.left_out_bytes > 30_000


def test_an_entry_that_is_gone_is_said_to_be(queue: Layout) -> None:
    with pytest.raises(EntryNotFound):
        entry_page(queue.path, "run/queue", "1795879165.M1P1Q1R1.h,S=3")


@pytest.mark.parametrize(
    "word", [HOSTILE, "-rf", "--all", "a\nb", "`id`", "\udcff\udcfe", "it's", "\\x41", "é\u2028"]
)
def test_a_command_gives_its_words_to_the_shell_as_they_are(word: str) -> None:
    line = shell_line("dead requeue", "run/queue", word, reason=word)
    assert line.isprintable()
    script = f"maildefer() {{ printf '%s\\0' \"$@\"; }}\n{line}\n"
    told = subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout
    given = [os.fsdecode(one) for one in told.split(b"\0")[:-1]]
    dashes = ["--"] if word.startswith("-") else []
    assert given == ["dead", "requeue", f"--reason-is={word}", *dashes, "run/queue", word]
