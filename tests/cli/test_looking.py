"""Commands that only look: they make nothing, follow no link, and believe no file that others may have planted."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from maildefer.maildir import journal
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.names import EntryName
from maildefer.maildir.push import Pusher
from maildefer.maildir.reasons import reason_path
from tests.sampling import one_fast

LEASE = "host-0a1b2c-4242-0123456789ab"
MEMORY_BYTES = 1 << 30
SECONDS = 30
COMMANDS = (
    ("queue", "list"),
    ("queue", "count"),
    ("dead", "list"),
    ("dead", "list", "--json"),
    ("status",),
    ("status", "--json"),
    ("audit", "--patience", "0"),
    ("audit", "--patience", "0", "--json"),
)


def fifo(path: str) -> None:
    os.mkfifo(path)


def sparse(path: str) -> None:
    Path(path).touch()
    os.truncate(path, 3 << 30)


def nested(path: str) -> None:
    Path(path).write_bytes(b'{"workers":' + b"[" * 60_000)


def endless_number(path: str) -> None:
    Path(path).write_bytes(b'{"since": 1%s, "faults": 1, "workers": 7, "key": [1e400]}' % (b"0" * 400))


def odd_types(path: str) -> None:
    odd: dict[str, object] = {"faults": 5, "workers": [1, {"state": "busy", "seconds": "x", "entry": [1]}]}
    odd |= {"since": -(1 << 63), "time": 1.7e308, "reason": {"a": []}, "rate_per_second": 1e308, "queues": 3}
    Path(path).write_text(json.dumps(odd | {"reload": [], "paused_seconds": {}, "paused_for": [], "pid": -1}))


def link(path: str) -> None:
    os.symlink("/etc/passwd", path)


PLANTS = (fifo, sparse, nested, endless_number, odd_types, link)


def seen(folder: str) -> dict[str, tuple[int, int]]:
    """Each file and folder with its kind and inode."""
    found = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            facts = os.lstat(path := f"{top}/{name}")
            found[path] = facts.st_mode, facts.st_ino
    return found


def look(queue: Layout, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maildefer", *command[:2], queue.path, *command[2:]]
        if command[0] in ("queue", "dead")
        else [sys.executable, "-m", "maildefer", command[0], queue.path, *command[1:]],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )


@pytest.fixture
def buried(queue: Layout) -> EntryName:
    """A queue with a live lease and a dead letter, to which control files may be planted."""
    journal.begin_journal(queue)
    key = Pusher(queue, host="h").push(lambda stem: [b"Subject: x\n\n"])
    dead = EntryName.parse(key).returned()
    os.rename(f"{queue.new}/{key}", f"{queue.dead_new}/{dead.waiting()}")
    journal.close_journals()
    return dead


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_no_planted_control_file_ends_a_look_or_holds_it_up(
    queue: Layout, buried: EntryName, plant: Callable[[str], None]
) -> None:
    places = [f"{queue.leases}/{LEASE}.7", f"{queue.status}/{LEASE}.json", queue.paused]
    places += [reason_path(queue, buried), f"{queue.requests}/{LEASE}.stop"]
    places += [
        f"{queue.journal}/2026-11-{day}.h.1.{kind}" for day in (1, 27) for kind in ("pushed", "settled")
    ]
    places += [f"{queue.journal}/{name}" for name in ("x.pushed", "settled", "..pushed")]
    for place in places:
        plant(place)
    before = seen(queue.path)
    for command in COMMANDS:
        ended = look(queue, *command)
        assert "Traceback" not in ended.stderr, (command, ended.stderr)
        assert ended.returncode in (0, 1, 3, 4), (command, ended)
    assert seen(queue.path) == before


@pytest.mark.slow
@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_format_is_an_error_that_names_it(queue: Layout, plant: Callable[[str], None]) -> None:
    os.unlink(queue.format)
    plant(queue.format)
    for command in (("queue", "list"), ("status",), ("audit",)):
        ended = look(queue, *command)
        assert "Traceback" not in ended.stderr, (command, ended.stderr)
        assert "a damaged format file" in ended.stderr, (command, ended)
        assert ended.returncode in (1, 3), (command, ended)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_look_makes_nothing_and_mends_nothing(maildefer, queue: Layout, command: tuple[str, ...]) -> None:
    journal.begin_journal(queue)
    for folder in (queue.later_new, queue.later_cur, queue.fenced, queue.tokens):
        shutil.rmtree(folder)
    before = seen(queue.path)
    maildefer(*command, queue.path)
    assert seen(queue.path) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_look_makes_no_queue_of_a_maildir(maildefer, tmp_path: Path, command: tuple[str, ...]) -> None:
    for name in ("tmp", "new", "cur"):
        (tmp_path / "maildir" / name).mkdir(parents=True)
    before = seen(str(tmp_path))
    maildefer(*command, f"{tmp_path}/maildir")
    assert seen(str(tmp_path)) == before


@one_fast("folder", ["new", "cur", "later_new", "dead_new", "control", "leases", "reasons", "journal"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_look_follows_no_link_out_of_the_queue(
    maildefer, queue: Layout, tmp_path: Path, command: tuple[str, ...], folder: str
) -> None:
    journal.begin_journal(queue)
    elsewhere = create_queue(str(tmp_path / "elsewhere"))
    journal.begin_journal(elsewhere)
    Pusher(elsewhere, host="h").push(lambda stem: [b"Subject: secret\n\n"])
    place = getattr(queue, folder)
    shutil.rmtree(place)
    target = getattr(elsewhere, folder)
    os.utime(target, (1, 1))
    os.symlink(target, place)
    ended = maildefer(*command, queue.path)
    assert ended.code in (1, 3), ended
    assert "is no directory of its own" in ended.err
    assert os.stat(target).st_mtime == 1, "not even its time was changed"


@pytest.mark.slow
def test_a_journal_with_a_queue_that_cannot_be_is_an_audit_all_the_same(maildefer, queue: Layout) -> None:
    journal.begin_journal(queue)
    Path(queue.journal, "2026-11-27.h.1.pushed").write_text("\n1.0 push 1.M1P1Q1.h,S=1 .\n1e400 push a .")
    moves = "\n2.0 move 1.M1P1Q1.h,S=1 ../a%00b/new/x .\n3.0 move 1.M1P1Q1.h,S=1 ../%ff/new/x .\n1.0 gap x ."
    Path(queue.journal, "2026-11-27.h.1.settled").write_text(moves + "\n" + "9" * 400 + " ack b .")
    ended = look(queue, "audit", "--patience", "0")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 1
    assert "handed to another queue, of which nothing is known" in ended.stdout


def test_the_status_of_what_is_no_queue_names_its_path_once(maildefer, tmp_path) -> None:
    for place in (tmp_path / "nothing", tmp_path / "file"):
        (tmp_path / "file").touch()
        told = [line for line in maildefer("status", str(place)).err.splitlines() if str(place) in line]
        assert [line.count(str(place)) for line in told[:1]] == [1], told


def test_a_hint_can_be_pasted_whatever_the_path_has_in_it(maildefer, tmp_path) -> None:
    queue = create_queue(str(tmp_path / "Büro post; x"))
    said = maildefer("push", queue.path, stdin=b"Subject: x\n\nx\n").err
    assert f"`maildefer queue list '{queue.path}'` shows what waits" in said
    said = maildefer("queue", "show", queue.path, "17.none").err
    assert f"`maildefer dead list '{queue.path}'`" in said


def test_a_variable_that_names_no_project_is_told_by_status(maildefer, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("MAILDEFER_PROJECT", str(tmp_path / "none"))
    ended = maildefer("status")
    assert (ended.code, "MAILDEFER_PROJECT=" in ended.err) == (78, True)
    assert maildefer("status", "--all-projects").code == 3


def try_settings(text: str) -> subprocess.CompletedProcess[str]:
    """Of a project in the working directory."""
    os.mkdir("conf")
    Path("conf/__init__.py").touch()  # before any other package of that name
    Path("conf/settings.py").write_text(f'queues = {{"run/queue": ["maildefer.handlers.log"]}}\n{text}\n')
    command = [sys.executable, "-m", "maildefer", "reload", "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('receiver_config = {"prot": 8823}', "receiver_config: prot means nothing"),
        ('receiver_config = {"socket_mode": "9"}', "socket_mode is '9'"),
        ('web_config = {"port": 8080}', "name a token_file"),
        ('web_config = {"token_file": "conf/none"}', "conf/none"),
        ('alerts = ["conf/nope.sh"]', "nope.sh is no program that this user may execute"),
        ('alerts = ["nope-no-such"]', "nope-no-such is no program"),
    ],
)
def test_a_trial_of_settings_tells_what_a_start_would_refuse(settings: str, said: str) -> None:
    ended = try_settings(settings)
    assert (ended.returncode, said in ended.stderr) == (78, True), ended.stderr


@pytest.mark.slow
def test_a_trial_of_sound_settings_finds_their_front_end_and_alerts() -> None:
    ended = try_settings('receiver_config = {"port": 8823}\nalerts = ["true", "--quiet"]')
    assert (ended.returncode, "settings and handlers load" in ended.stdout) == (0, True), ended.stderr
