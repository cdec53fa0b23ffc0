"""`sendmail`, `cleanse`, `blast`, and the spellings that Salmon's users know."""

from __future__ import annotations

import errno
import mailbox
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from maildefer.cli.program import COMMANDS
from maildefer.cli.stdin_message import completed, recipients_of
from maildefer.commands import main
from maildefer.maildir import durable
from maildefer.queue import Queue

MESSAGE = b"To: ann@x, Bob <bob@x>\nCc: cid@x\nBcc: dan@x,\n eve@x\nSubject: hi\n\nbody\n.\nmore\n"


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("MAILDEFER_QUEUE", "run/queue")
    return made("run/queue")


def made(path: str) -> Queue:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return Queue(path)


def taken(inbox: Queue) -> list[Any]:
    found = []
    while (message := inbox.pop()[1]) is not None:
        found.append(message)
    return sorted(found, key=lambda message: message.To)


def test_sendmail_makes_an_entry_for_each_recipient(maildefer, inbox):
    assert maildefer("sendmail", "-i", "-f", "Me@x", "ann@x", "bob@x", stdin=MESSAGE).code == 0
    got = taken(inbox)
    assert [(one.From, one.To) for one in got] == [("me@x", "ann@x"), ("me@x", "bob@x")]
    assert all(one.Data.endswith(MESSAGE) for one in got)


def test_sendmail_takes_recipients_from_headers_and_hides_blind_copies(maildefer, inbox):
    assert maildefer("sendmail", "-oi", "-t", "-fme@x", stdin=MESSAGE).code == 0
    got = taken(inbox)
    assert [one.To for one in got] == ["ann@x", "bob@x", "cid@x", "dan@x", "eve@x"]
    assert not any(b"dan@x" in one.Data or b"eve@x" in one.Data for one in got)
    assert all(one.Data.endswith(b"Subject: hi\n\nbody\n.\nmore\n") for one in got)


def test_a_line_with_a_dot_ends_the_message_unless_i_is_given(maildefer, inbox):
    maildefer("sendmail", "ann@x", stdin=MESSAGE)
    maildefer("sendmail", "-oi", "bob@x", stdin=MESSAGE)
    maildefer("sendmail", "-ti", stdin=MESSAGE.replace(b"ann@x, Bob <bob@x>", b"cid@x"))
    assert [one.Data.endswith(b"more\n") for one in taken(inbox)][:3] == [False, True, True]


def test_sendmail_adds_what_a_message_lacks_and_nothing_else(maildefer, inbox):
    maildefer("sendmail", "-F", "Me", "-rme@x", "ann@x", stdin=b"just a text\n")
    [message] = taken(inbox)
    assert (message["From"], message.body()) == ("Me <me@x>", "just a text\n")
    assert message["Date"]
    assert message["Message-ID"].endswith(f"@{os.uname().nodename}>")
    whole = b"From: a@x\r\nDate: x\r\nMessage-ID: <1@x>\r\n\r\nbody\r\n"
    assert completed(whole, sender="b@x", name=None, host="h") == whole


def test_a_sender_without_a_name_is_the_user_of_this_host(maildefer, inbox):
    maildefer("sendmail", "root", stdin=b"Subject: x\n\n")
    [message] = taken(inbox)
    host = os.uname().nodename.lower()
    assert (message.To, message.From.endswith(f"@{host}")) == (f"root@{host}", True)


def test_a_recipient_named_twice_gets_one_entry(maildefer, inbox):
    maildefer("sendmail", "-t", "ann@x", "ann@x", stdin=b"To: ann@x\n\n")
    assert len(taken(inbox)) == 1


def test_the_null_sender_is_kept(maildefer, inbox):
    maildefer("sendmail", "-f", "<>", "ann@x", stdin=b"Subject: x\n\n")
    assert taken(inbox)[0].From == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 64),
        (["-Z", "ann@x"], 64),
        (["-f"], 64),
        (["-bd"], 64),
        (["--nonsense", "ann@x"], 64),
        (["a\nb@x"], 67),
        (["ok@x", "a\nb@x"], 67),
        (["--queue", "run/absent", "ann@x"], 75),
        (["--port", "1", "ann@x"], 75),
        (["-q"], 0),
        (["-bi"], 0),
        (["-odi", "-oem", "-v", "ann@x"], 0),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, list) else None,
)
def test_sendmail_ends_with_the_codes_of_sysexits(maildefer, inbox, arguments, code):
    assert maildefer("sendmail", *arguments, stdin=b"Subject: x\n\n").code == code
    assert inbox.count() == (1 if arguments == ["-odi", "-oem", "-v", "ann@x"] else 0)


def test_without_a_queue_sendmail_names_what_is_missing(maildefer):
    ended = maildefer("sendmail", "ann@x", stdin=b"Subject: x\n\n")
    assert (ended.code, "--queue" in ended.err) == (78, True)


def test_the_project_tells_sendmail_its_queue(maildefer):
    os.makedirs("conf")
    Path("conf/__init__.py").touch()
    Path("conf/settings.py").write_text("queues = {'run/first': ['workers.none']}\n")
    code = "from maildefer.cli.program import run; run(['sendmail', 'ann@x'])"
    done = subprocess.run([sys.executable, "-c", code], input=b"Subject: x\n\n", check=False)
    assert (done.returncode, Queue("run/first").count()) == (0, 1)


@pytest.mark.slow
def test_settings_that_name_no_queue_mean_the_front_queue(maildefer):
    os.makedirs("conf")
    Path("conf/__init__.py").touch()
    Path("conf/settings.py").write_text("relay_config = {'host': 'localhost', 'port': 8825}\n")
    for command, told in ((["sendmail", "ann@x"], b""), (["queue", "--count"], b"0\n")):
        code = f"from maildefer.cli.program import run; run({command})"
        done = subprocess.run(
            [sys.executable, "-c", code], input=b"Subject: x\n\n", stdout=subprocess.PIPE, check=False
        )
        assert (done.returncode, done.stdout) == (0, told)
        assert os.path.isdir("run/queue/new")
        shutil.rmtree("run")


def test_sendmail_lists_the_queue(maildefer, inbox):
    key = inbox.push(b"Subject: x\n\n", recipient="ann@x")
    assert key in maildefer("sendmail", "-bp").out


@pytest.mark.slow
def test_sendmail_speaks_smtp_on_standard_input(inbox):
    code = "from maildefer.cli.program import run; run(['sendmail', '-bs'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as spoken:
        assert spoken.stdin is not None
        assert spoken.stdout is not None
        replies = [spoken.stdout.readline()]
        for line in ("HELO x", "MAIL FROM:<a@x>", "RCPT TO:<b@x>", "DATA", "Subject: hi\r\n\r\n.", "QUIT"):
            spoken.stdin.write(f"{line}\r\n".encode())
            spoken.stdin.flush()
            replies.append(spoken.stdout.readline())
        assert [int(reply[:3]) for reply in replies] == [220, 250, 250, 250, 354, 250, 221]
    assert spoken.returncode == 0
    assert inbox.pop()[1]["Subject"] == "hi"


def test_folded_headers_name_recipients_too():
    found, kept = recipients_of(b"To: a@x,\r\n\tb@x\r\nBCC: c@x\r\nSubject: to: d@x\r\n\r\nTo: e@x\r\n")
    assert found == ["a@x", "b@x", "c@x"]
    assert kept == b"To: a@x,\r\n\tb@x\r\nSubject: to: d@x\r\n\r\nTo: e@x\r\n"


def boxes(folder: Path) -> tuple[Path, Path]:
    box = mailbox.mbox(folder / "in.mbox")
    for n in range(3):
        box.add(f"From: a@x\nTo: b{n}@x\nSubject: =?latin-1?q?=E9?= {n}\n\nFrom here\n")
    box.flush()
    directory = mailbox.Maildir(folder / "in.dir")
    for message in box:
        directory.add(message)
    box.close()
    return folder / "in.mbox", folder / "in.dir"


def test_cleanse_writes_a_mailbox_anew_and_keeps_its_input(maildefer, tmp_path):
    for source in boxes(tmp_path):
        before = source.read_bytes() if source.is_file() else sorted(os.listdir(source / "new"))
        out = tmp_path / f"{source.name}.out"
        assert maildefer("cleanse", str(source), str(out)).code == 0
        got = sorted(str(message["Subject"]) for message in mailbox.Maildir(out))
        assert [subject.lower().startswith("=?utf-8?") for subject in got] == [True] * 3
        assert before == (source.read_bytes() if source.is_file() else sorted(os.listdir(source / "new")))


def test_cleanse_without_a_mailbox_makes_none(maildefer, tmp_path):
    assert maildefer("cleanse", str(tmp_path / "absent"), str(tmp_path / "out")).code == 1
    assert not (tmp_path / "out").exists()


def test_cleanse_fails_for_a_message_that_it_cannot_write_and_writes_the_others(
    maildefer, tmp_path, monkeypatch
):
    from maildefer.errors import EncodingError
    from maildefer.message.mime import canonical

    original = canonical.to_string

    def to_string(mail: Any, **how: bool) -> str:
        if mail["To"] == "b1@x":
            raise EncodingError("no")
        return original(mail, **how)

    monkeypatch.setattr(canonical, "to_string", to_string)
    assert maildefer("cleanse", str(boxes(tmp_path)[0]), str(tmp_path / "out")).code == 1
    assert len(mailbox.Maildir(tmp_path / "out")) == 2


def test_blast_sends_every_message(maildefer, tmp_path, monkeypatch):
    from maildefer.message.outgoing.relay import Relay

    sent: list[tuple[int, str]] = []
    monkeypatch.setattr(Relay, "deliver", lambda self, message: sent.append((self.port, message.To)))
    for source in boxes(tmp_path):
        assert maildefer("blast", str(source), "--port", "99").code == 0
    assert sorted(sent) == sorted([(99, f"b{n}@x") for n in range(3)] * 2)


def test_blast_tells_a_socket_error_and_a_missing_mailbox(maildefer, tmp_path):
    ended = maildefer("blast", str(boxes(tmp_path)[0]), "--port", "1")
    assert (ended.code, ended.err.startswith("Error: ")) == (1, True)
    assert maildefer("blast", str(tmp_path / "absent")).code == 1


def test_the_operations_of_a_queue_in_salmons_spelling(maildefer):
    box = made("run/queue")
    keys = [box.push(f"Subject: {n}\n\n") for n in range(3)]
    assert maildefer("queue", "--count").out == "3\n"
    assert sorted(maildefer("queue", "run/queue", "--keys").out.split()) == sorted(keys)
    assert maildefer("queue", "--get", keys[0]).out == "Subject: 0\n\n"
    assert maildefer("queue", "run/queue", f"--remove={keys[1]}").code == 0
    assert maildefer("queue", "--remove", keys[1]).code == 1
    assert maildefer("queue", "--pop", "run/queue").out.startswith("Subject: ")
    assert box.count() == 1
    assert maildefer("queue", "--clear").code == 0
    assert box.count() == 0
    assert maildefer("queue", "--pop").code == 0


@pytest.mark.parametrize("given", [("--count", "list"), ("--count=", "list"), ("list", "--count")])
def test_an_option_before_a_subcommands_name_makes_it_a_folder(maildefer, given):
    Queue("list").push("Subject: x\n\n")
    ended = maildefer("queue", *given)
    if given == ("--count", "list"):
        assert (ended.code, ended.out) == (0, "1\n")
    else:  # a flag takes no value; `list` has no such option
        assert (ended.code, ended.out) == (2, "")


def test_a_key_may_be_spelt_as_a_subcommand_is(maildefer):
    made("run/queue")
    assert "no entry list" in maildefer("queue", "--get", "list").err
    assert "no entry list" in maildefer("queue", "--get=list").err
    assert "no entry list" in maildefer("queue", "run/queue", "--remove", "list").err


def test_a_folder_without_an_operation_is_no_subcommand(maildefer):
    made("run/queue")
    assert maildefer("queue", "run/queue", "list").code == 2


def test_one_operation_at_a_time(maildefer):
    made("run/queue")
    assert maildefer("queue", "--count", "--keys").code == 2
    assert maildefer("queue", "run/queue").code == 2
    assert maildefer("queue", "count", "run/queue").code == 0


@pytest.mark.parametrize("command", ["start", "stop", "status"])
def test_the_spellings_of_old_are_understood(maildefer, command):
    ended = maildefer(command, "-pid", "run/none.pid", *(["-boot", "no.such"] if command == "start" else []))
    assert ended.code != 2


def test_stop_all_of_old_lists_the_pid_files(maildefer):
    os.makedirs("run")
    assert "nothing to stop" in maildefer("stop", "-ALL", "run").err


def test_main_can_be_driven_by_a_runner():
    runner = CliRunner()
    ended = runner.invoke(main, ["--version"])
    assert (ended.exit_code, ended.output.startswith("maildefer ")) == (0, True)
    assert runner.invoke(main, ["no-such-command"]).exit_code == 2
    assert runner.invoke(main, ["stop", "--pid", "run/none.pid"]).exit_code == 1


@pytest.mark.slow
def test_main_can_be_driven_by_clicks_own_runner():
    click_testing = pytest.importorskip("click.testing")
    made("run/queue")
    ended = click_testing.CliRunner().invoke(main, ["queue", "run/queue", "--count"])
    assert (ended.exit_code, ended.output) == (0, "0\n")


def test_every_command_of_salmon_is_there():
    salmons = "start stop status log queue routes send sendmail gen cleanse blast"
    assert set(salmons.split()) <= set(COMMANDS)


def test_sendmail_that_fails_for_one_recipient_leaves_no_entry_for_the_others(maildefer, inbox, monkeypatch):
    real, calls = durable.begin_file, []

    def full(*arguments, **system):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **system)

    monkeypatch.setattr(durable, "begin_file", full)
    assert maildefer("sendmail", "-i", "-f", "me@x", "ann@x", "bob@x", "cid@x", stdin=MESSAGE).code == 75
    assert len(inbox) == 0


def test_sendmail_keeps_what_is_asked_of_reports(maildefer, inbox):
    for said in (["-N", "failure,delay", "-Rhdrs", "-V", "QQ+2B1"], ["-Nnever"]):
        assert maildefer("sendmail", "-i", "-f", "me@x", *said, "ann@x", stdin=MESSAGE).code == 0
    asked = {one.came_with.dsn for one in taken(inbox)}
    assert asked == {"RET=HDRS ENVID=QQ+2B1 NOTIFY=FAILURE,DELAY", "NOTIFY=NEVER"}
    ended = maildefer("sendmail", "-N", "sometimes", "ann@x", stdin=MESSAGE)
    assert (ended.code, "NOTIFY is NEVER alone" in ended.err, taken(inbox)) == (64, True, [])
