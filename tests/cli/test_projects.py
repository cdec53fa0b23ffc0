"""`new` and `routes`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.cli.defaults import pid_path


@pytest.fixture
def project(maildefer, monkeypatch):
    assert maildefer("new", "blog").code == 0
    monkeypatch.chdir("blog")


@pytest.mark.parametrize("name", ["new", "gen"])
def test_a_project_is_written_and_its_files_named(maildefer, name):
    ended = maildefer(name, "there")
    assert ended.code == 0
    assert "there/conf/settings.py" in ended.out.splitlines()
    assert all(os.path.isfile(line) for line in ended.out.splitlines())
    assert "maildefer supervise" in ended.err


def test_what_is_there_is_not_written_over(maildefer):
    os.mkdir("there")
    Path("there/mine").touch()
    assert maildefer("new", "there").code == 1
    assert maildefer("new", "there", "--force").code == 0
    assert os.path.exists("there/mine")


@pytest.mark.slow
def test_routes_shows_the_table_of_all_queues(maildefer, project):
    told = maildefer("routes", "--json").records
    assert {(one["queue"], one["module"]) for one in told} == {
        ("run/queue", "workers.posting"),
        ("run/posts", "workers.index"),
        ("run/outgoing", "maildefer.handlers.outgoing"),
    }


@pytest.mark.slow
def test_routes_tells_captures_of_an_address(maildefer, project):
    told = maildefer("routes", "--test", "First-Post@osb.example", "--json").records
    posts = [one["captures"] for one in told if one["queue"] != "run/outgoing"]  # which has any address
    assert posts
    assert all(captures == {"post_name": "First-Post", "host": "example"} for captures in posts)
    assert "post_name='First-Post'" in maildefer("routes", "--test", "First-Post@osb.example").out


def test_an_address_that_no_route_matches_is_a_failure(maildefer, project):
    settings = Path("conf/settings.py")
    text = settings.read_text().replace('["maildefer.handlers.outgoing"]', "[]")
    settings.write_text(text.replace("\nnotices = ", "\nno_notices = "))  # a queue that takes any address
    ended = maildefer("routes", "--test", "x@elsewhere.example")
    assert ended.code == 1
    assert ended.out == ""
    assert "--test" not in ended.err, "the remedy is not what was just done"


@pytest.mark.slow
def test_a_route_that_takes_too_long_to_be_tested_is_named(maildefer, project):
    Path("slow.py").write_text(
        "from maildefer.routing import route\n@route('(([a-z]+)+)+@slow')\ndef START(message, **k): ...\n"
    )
    ended = maildefer("routes", "slow", "--test", "a" * 60 + "!@slow")
    assert ended.code == 1
    assert "the route ^(([a-z]+)+)+@slow$ takes more than 1 s" in ended.err


def test_modules_that_are_in_no_queue_can_be_tried(maildefer, project):
    os.mkdir("more")
    Path("more/extra.py").write_text(
        "from maildefer.routing import route\nprint('noise')\n@route('(post_name)@x')\ndef START(message, **k): ...\n"
    )
    (told,) = maildefer("routes", "extra", "--path", "more", "--json").records
    assert told["pattern"].startswith("^(?P<post_name>")
    assert (told["module"], told["function"], told["stateless"]) == ("extra", "START", False)


def test_modules_can_be_tried_whatever_queues_the_settings_lack(maildefer, project):
    Path("conf/settings.py").write_text("router_defaults = {'post_name': '[a-z]+'}\n")
    Path("extra.py").write_text(
        "from maildefer.routing import route\n@route('(post_name)@x')\ndef START(message, **k): ...\n"
    )
    (told,) = maildefer("routes", "extra", "--json").records
    assert told["pattern"] == "^(?P<post_name>[a-z]+)@x$"


def test_a_module_that_cannot_be_imported_is_a_failure(maildefer, project):
    Path("workers/broken.py").write_text("import nothing_of_that_name\n")
    ended = maildefer("routes", "workers.broken")
    assert ended.code == 1
    assert "workers/broken.py:1" in ended.err
    assert maildefer("routes", "workers.missing").code == 1


def test_without_modules_and_without_settings_there_is_nothing_to_show(maildefer):
    assert maildefer("routes").code == 2


def test_modules_that_the_settings_name_are_bad_configuration_if_they_are_broken(maildefer, project):
    Path("workers/index.py").write_text("import nothing_of_that_name\n")
    assert maildefer("routes").code == 78


def test_modules_without_a_route_are_a_failure(maildefer, project):
    Path("workers/empty.py").touch()
    assert maildefer("routes", "workers.empty").code == 1


@pytest.mark.slow
def test_the_command_itself_imports_no_handler(project):
    program = """
import sys
sys.argv = ["maildefer", "routes"]
from maildefer.cli import main
try:
    main()
finally:
    print(any(name.startswith(("workers", "conf")) for name in sys.modules), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines()[-1] == "False"


def test_gen_takes_no_folder_that_is_there_and_new_an_empty_one(maildefer):
    os.mkdir("there")
    assert maildefer("gen", "there").code == 1
    assert os.listdir("there") == []
    assert maildefer("gen", "there", "--force").code == 0
    os.mkdir("empty")
    assert maildefer("new", "empty").code == 0


def test_gen_by_force_writes_a_project_afresh_and_keeps_what_was_there(maildefer):
    os.mkdir("blog")
    for text in ("first", "second"):
        Path("blog/diary").write_text(text)
        ended = maildefer("gen", "blog", "--force")
        assert (ended.code, os.path.exists("blog/diary"), os.path.exists("blog/conf/boot.py")) == (
            0,
            False,
            True,
        )
    assert (Path("blog.old/diary").read_text(), Path("blog.old-2/diary").read_text()) == ("first", "second")
    assert maildefer("gen", "absent", "--force").code == 0
    assert maildefer("gen", ".", "--force").code == 2


def test_new_by_force_leaves_alone_what_is_not_its_own(maildefer):
    os.mkdir("blog")
    Path("blog/diary").write_text("mine")
    assert maildefer("new", "blog", "--force").code == 0
    assert Path("blog/diary").read_text() == "mine"


def test_a_command_below_the_project_has_its_pid_file_in_the_project(monkeypatch):
    os.makedirs("blog/conf")
    Path("blog/conf/settings.py").write_text("queues = {}\n")
    os.makedirs("blog/below")
    project = os.path.abspath("blog")
    monkeypatch.chdir("blog/below")
    assert pid_path(None, "run/smtp.pid") == f"{project}/run/smtp.pid"
    assert pid_path("mine.pid", "run/smtp.pid") == f"{project}/below/mine.pid"
    monkeypatch.chdir("/")
    monkeypatch.setenv("MAILDEFER_PROJECT", project)
    assert pid_path(None, "run/smtp.pid") == f"{project}/run/smtp.pid"
