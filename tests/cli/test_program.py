"""The command as a whole: its overview, what it loads, what it says when something is wrong."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys

import pytest

from maildefer.cli.group import load
from maildefer.cli.program import COMMANDS, Program
from maildefer.host import runtime_dir, status_socket
from maildefer.host.identity import start_time
from maildefer.maildir.layout import create_queue
from tests.sampling import one_fast

HEAVY = {
    "pydantic",
    "rich",
    "structlog",
    "jinja2",
    "filelock",
    "psutil",
    "aiosmtpd",
    "asyncio",
    "smtplib",
    "ssl",
    "email.message",
    "maildefer.handling.application",
}


@one_fast(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["stop", "--pid", "run/none.pid"],
        ["stop", "--all", "run"],
        ["status"],
        ["queue", "count", "run/none"],
        ["queue", "list", "--help"],
        ["pause"],
    ],
    ids=" ".join,
)
def test_a_light_command_loads_nothing_heavy(arguments, tmp_path):
    program = f"""
import sys
sys.argv = ["maildefer", *{arguments!r}]
from maildefer.cli import main
try:
    main()
finally:
    print("LOADED", *sys.modules, file=sys.stderr)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    loaded = set(ended.stderr.rpartition("LOADED ")[2].split())
    assert "typer" in loaded
    # typer itself asks `importlib.metadata`, and with it the e-mail package, on old versions of Python
    assert loaded & HEAVY - {"email.message"} == set()


def test_the_overview_loads_no_command(tmp_path):
    program = "import sys\nfrom maildefer.cli.program import run\ntry:\n    run(['--help'])\nfinally:\n"
    program += "    print(*[m for m in sys.modules if m.startswith('maildefer')], file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert {m for m in ended.stderr.split() if m.startswith("maildefer.cli.")} == {
        "maildefer.cli.program",
        "maildefer.cli.group",
        "maildefer.cli.parameters",
        "maildefer.cli.output",
    }


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "gen"])
def test_the_overview_says_what_the_command_says_of_itself(name):
    command = load(f"maildefer.cli.commands.{Program.modules.get(name, name)}", name)
    assert command.help == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_one_sentence(name, maildefer):
    assert COMMANDS[name].endswith(".")
    ended = maildefer(name, "--help")
    assert ended.code == 0
    assert COMMANDS[name].split(" (")[0].rstrip(".") in " ".join(ended.out.split())


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"queue", "dead", "sendmail"}))
def test_what_an_option_takes_is_named_for_people(name, maildefer):
    options = maildefer(name, "--help").out.partition("Options:")[2]
    assert not re.search(r"<(str|int|float|int range|list)", options), "a type of Python's"


@pytest.mark.parametrize("module", ["queue", "dead"])
def test_subcommands_have_a_sentence_each(module):
    command = load(f"maildefer.cli.commands.{module}", module)
    for subcommand in command.commands.values():
        assert subcommand.help.endswith(".")
        assert "\n" not in subcommand.help


def test_every_command_is_there(maildefer):
    ended = maildefer("--help")
    for name in COMMANDS:
        assert name == "gen" or f"\n  {name} " in ended.out


def test_the_version_is_told(maildefer):
    from maildefer.version import VERSION

    assert maildefer("--version").out == f"maildefer {VERSION}\n"


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(maildefer):
    ended = maildefer("sto")
    assert ended.code == 2
    assert "Did you mean 'stop', 'top'?" in ended.err


@pytest.mark.parametrize("value", ["x", "-1", "nan"])
def test_a_wrong_number_is_a_usage_error(maildefer, value):
    ended = maildefer("stop", "--timeout", value)
    assert ended.code == 2
    assert value in ended.err


def test_an_error_is_one_line_without_a_traceback(maildefer):
    ended = maildefer("queue", "list", "run/mistyped")
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("maildefer: no queue at ")
    assert ended.err.count("\n") == 1


@one_fast(
    ("closed", "arguments", "code", "told"),
    [
        (0, ("push", "q", "-r", "a@b.example"), 1, "Bad file descriptor"),
        (0, ("sendmail", "--queue", "q", "a@b.example"), 75, "Bad file descriptor"),
        (1, ("supervise", "none", "--pid", "p"), 78, "no handlers"),
        (2, ("status", "--json"), 3, ""),
    ],
)
def test_a_closed_standard_descriptor_is_no_files(closed, arguments, code, told):
    """As some init programs and daemons leave it."""
    create_queue("q")
    ended = subprocess.run(
        [sys.executable, "-m", "maildefer", *arguments],
        preexec_fn=lambda: os.close(closed),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert os.listdir("q/new") == []


@pytest.mark.slow
def test_python_runs_it_by_both_names():
    for name in ("maildefer", "maildefer.cli"):
        ended = subprocess.run(
            [sys.executable, "-m", name, "--version"], capture_output=True, text=True, check=True
        )
        assert ended.stdout.startswith("maildefer ")


def test_an_interrupt_while_modules_are_loaded_is_quiet(tmp_path):
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    command = [sys.executable, "-m", "maildefer", "status"]
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_importing_the_package_of_commands_imports_no_typer():
    program = "import sys, maildefer.cli; sys.exit('typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_control_characters_from_entries_reach_no_terminal():
    output = importlib.import_module("maildefer.cli.output")
    assert output.clean("a\x1b[31mb\nc\u202ed\udcff") == r"a\x1b[31mb\nc\u202ed\udcff"
    assert output.clean("grüße → ok") == "grüße → ok"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0012, "1 ms"), (5, "5 s"), (600, "10 min"), (10800, "3.0 h"), (864000, "10.0 d"), (-5, "-5 s")],
)
def test_durations_are_told_roughly(seconds, text):
    from maildefer.cli.output import duration

    assert duration(seconds) == text


@pytest.mark.parametrize("wanted", ["--live", "--ready"])
def test_a_probe_looks_at_no_mount(maildefer, wanted, monkeypatch):
    """Whatever a mount does, then, it answers in time; only this host's runtime directory and sockets are looked at."""
    project = os.getcwd()
    record = runtime_dir.RuntimeRecord(
        pid=os.getpid(),
        start_time=start_time(os.getpid()) or 0,
        kind="supervise",
        pidfile=f"{project}/run/p.pid",
        started=1.0,
        project=project,
        status_socket=runtime_dir.socket_path(f"{project}/run/p.pid"),
    )
    runtime_dir.write_record(record)

    def hang(function):
        def look(path=".", *more, **options):
            assert os.path.isabs(path), f"a look at {path}"
            assert not str(path).startswith(project), f"a look at {path}"
            return function(path, *more, **options)

        return look

    for name in ("stat", "lstat", "listdir", "scandir", "open", "access", "readlink", "chdir"):
        monkeypatch.setattr(os, name, hang(getattr(os, name)))
    with status_socket.listen_at(str(record.status_socket)) as listening:
        status_socket.answer_in_thread(listening, lambda: {"workers": [{"state": "idle"}]})
        ended = maildefer("probe", wanted)
    assert (ended.code, ended.out) == (0, f"{wanted[2:]}\n"), ended.err


def test_starts_help_names_the_boot_module_that_new_projects_have(maildefer):
    said = maildefer("start", "--help").out
    assert "conf.boot" in said
    assert "config.boot" not in said
