"""Tests of an application never touch real mail, in whatever order things are imported and made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer import testing
from maildefer.handling.project import finder, queue_paths, test_store
from maildefer.handling.project import settings as settings_module
from maildefer.handling.state.directory import DirectoryStorage
from maildefer.mail import MailRequest
from maildefer.maildir.layout import create_queue
from maildefer.queue import Queue
from maildefer.routing import Router, ShelveStorage
from maildefer.server import Relay
from tests.handling.project.test_paths import run, write
from tests.sampling import one_fast

SETTINGS = """
queues = {"run/queue": ["app.first"], "run/posts": ["app.second"], "ELSEWHERE": ["app.third"]}
relay_config = {"host": "127.0.0.1", "port": 9}
"""
FIRST = """
from maildefer.queue import Queue
from maildefer.routing import route, stateless
from maildefer.tasks import task
from maildefer.utils import settings

kept = Queue("run/posts")  # made with the module

@task
def notify(text): ...

@route("(who)@x", who=".+")
@stateless
def START(message, who):
    settings.relay.deliver("To: ann@x\\nFrom: bob@x\\nSubject: re: " + who + "\\n\\n")
    kept.push(message)
    Queue("run/queue").push(message)
    notify.defer(who)
    return "app.second.INDEX"
"""
SECOND = """
from maildefer.routing import route, stateless

@route("(who)@x", who=".+")
@stateless
def INDEX(message, who):
    open("indexed", "a").write(who)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a mail waiting in each of its queues, one of which is outside of its folder."""
    path, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    settings = SETTINGS.replace("ELSEWHERE", str(elsewhere))
    for file, text in (("conf/settings.py", settings), ("app/first.py", FIRST), ("app/second.py", SECOND)):
        write(path / file, text)
        write((path / file).parent / "__init__.py", "")
    monkeypatch.chdir(path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(settings_module, "_loaded", None)
    for variable in (*finder.VARIABLES, finder.PROJECT, test_store.VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    for queue in (path / "run" / "queue", path / "run" / "posts", elsewhere):
        create_queue(str(queue))
        Queue(str(queue)).push(b"Subject: real\n\n", sender="a@x", recipient="b@x")
    return path


def real_mail(project: Path) -> list[int]:
    places = (project / "run" / "queue", project / "run" / "posts", project.parent / "elsewhere")
    return [len(os.listdir(place / "new")) for place in places]


CONVERSATION = """
client.begin()
client.say("carl@x", "hello", "re: carl")
assert delivered("re: carl") and queue().count() == 3, queue().count()  # the answer, the copy, and the task's call
assert Queue("run/posts").count() == queue("run/posts").count() == 1
assert Queue(ELSEWHERE).count() == 0
clear_queue(); clear_queue("run/posts"); clear_queue(TEST_QUEUE)
assert queue().count() == 0
settings.relay.deliver("To: a@x\\nFrom: b@x\\n\\n")
assert queue().count() == 1
"""
LATER = """
from maildefer.testing import queue
from maildefer.queue import Queue
import app.first, os

key = Queue("run/posts").push("Subject: x\\n\\n", after=60)
app.first.notify.defer("ann", after=60)
assert len(os.listdir(queue("run/posts").layout.later_new)) == 1
assert len(os.listdir(queue().layout.later_new)) == 1
queue("run/posts").reschedule(key, after=0)
assert queue("run/posts").keys() == [key] and queue("run/posts").cancel(key)
"""
ORDERS = {
    "helpers first": ("testing", "load", "client"),
    "application first": ("load", "testing", "client"),
    "conversation before the application": ("testing", "client", "load"),
}


@pytest.mark.slow
def test_what_a_test_pushes_for_later_is_kept_from_the_projects_queues(project: Path) -> None:
    assert run(LATER, project) == ""
    assert real_mail(project) == [1, 1, 1]
    assert os.listdir(project / "run" / "posts" / ".later" / "new") == []


@one_fast("order", list(ORDERS))
def test_what_a_test_says_and_clears_is_kept_from_the_projects_queues(project: Path, order: str) -> None:
    steps = {
        "testing": "from maildefer.testing import *",
        "load": "from maildefer.handling.application import Application; Application.load()\n"
        "from maildefer.routing import Router; Router.LOG_EXCEPTIONS = False\n"
        "from maildefer.queue import Queue; from maildefer.utils import settings",
        "client": "client = RouterConversation('ann@x', 'hello')",
    }
    write(project / "app" / "third.py", SECOND.replace("@x", "@z"))
    code = "\n".join([steps[step] for step in ORDERS[order]])
    code += CONVERSATION.replace("ELSEWHERE", repr(str(project.parent / "elsewhere")))
    assert run(code, project) == ""
    assert real_mail(project) == [1, 1, 1]
    assert (project / "indexed").read_text() == "carl"  # the handoff, made in this process


def test_states_that_a_test_forgets_are_not_those_of_real_conversations(project: Path) -> None:
    real = DirectoryStorage("run/queue/.maildefer/states")
    real.set("app.first", "ann@x", "CONFIRMED")
    code = (
        "from maildefer.routing import Router, DirectoryStorage\n"
        "Router.STATE_STORE = DirectoryStorage('run/queue/.maildefer/states')\n"
        "from maildefer.testing import *\n"
        "RouterConversation('ann@x', 'hello').begin()\n"
        "assert_in_state('app.first', 'b@x', 'ann@x', 'START')"
    )
    assert run(code, project) == ""
    assert real.get("app.first", "ann@x") == "CONFIRMED"


def test_a_temporary_store_goes_with_its_process(project: Path) -> None:
    folder = run("from maildefer import testing; testing.queue(); print(testing.store())", project)
    assert folder.rpartition("/")[2].startswith("maildefer-tests-")
    assert not os.path.exists(folder)


def test_a_store_may_be_named_by_a_test_or_a_variable(project: Path) -> None:
    for code, environment in (
        ("testing.store('run/tests')", {}),
        ("testing.store()", {"MAILDEFER_TEST_STORE": "run/tests"}),
    ):
        told = run(
            f"from maildefer import testing; {code}; print(testing.queue().layout.path)",
            project,
            **environment,
        )
        assert told == str(project / "run" / "tests" / "run" / "queue")


@pytest.mark.parametrize("folder", [".", "run/queue", "run/queue/tests"])
def test_a_store_in_which_the_projects_own_queues_lie_is_refused(project: Path, folder: str) -> None:
    with pytest.raises(testing.RealQueueRefused, match=r"is a queue of .*settings\.py; give another folder"):
        testing.store(folder)


def test_a_helper_that_is_pointed_at_a_queue_of_the_settings_refuses(project: Path) -> None:
    for place in (project / "run" / "queue", project.parent / "elsewhere"):
        for helper in (testing.queue, testing.clear_queue):
            with pytest.raises(
                testing.RealQueueRefused, match="whose mail is real: give its name in the settings"
            ):
                helper(str(place))
    testing._end()
    real = Queue("run/queue")
    client = testing.RouterConversation("ann@x", "hello")
    client.queue = real
    client.begin()  # it is the tests' own by now
    assert real_mail(project) == [1, 1, 1]


def test_a_helper_that_is_pointed_at_a_queue_that_somebody_serves_refuses(
    project: Path, tmp_path: Path
) -> None:
    served = create_queue(str(tmp_path / "served"))
    Queue(served.path).push(b"Subject: real\n\n")
    client = testing.RouterConversation("ann@x", "hello")
    client.queue = Queue(served.path)
    with Queue(served.path).consumer():
        for refused in (client.begin, lambda: testing.clear_queue(served.path)):
            with pytest.raises(
                testing.RealQueueRefused, match=r"somebody serves the queue .*MAILDEFER_TEST_STORE"
            ):
                refused()
    assert len(os.listdir(served.new)) == 1


def test_a_process_that_handles_real_mail_is_none_of_a_test(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_paths, "in_service", True)
    with pytest.raises(testing.RealQueueRefused, match="import it in tests only"):
        testing.queue()
    write(project / "app" / "first.py", "import maildefer.testing\n")
    write(project / "app" / "third.py", SECOND.replace("@x", "@z"))
    probed = subprocess.run(
        [sys.executable, "-m", "maildefer.pool.probe_process"], cwd=project, capture_output=True, check=False
    )
    assert probed.returncode == 78
    assert (
        b"app/first.py:1: maildefer.testing is imported by a process that handles real mail" in probed.stdout
    )


def test_only_the_relay_of_the_helpers_sends(project: Path) -> None:
    testing.queue()
    Relay("127.0.0.1", 9).send("ann@x", "bob@x", "hello", "text")
    assert testing.delivered("hello")
    with pytest.raises(ConnectionRefusedError):
        testing.relay(port=9).send("ann@x", "bob@x", "hello", "text")


def test_a_queue_that_is_no_projects_is_the_tests_own_already(project: Path, tmp_path: Path) -> None:
    testing.queue()
    assert Queue(str(tmp_path / "own")).layout.path == str(tmp_path / "own")
    assert Router.STATE_STORE is not None


def test_a_queue_of_the_settings_is_told_by_any_link_that_leads_to_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, current = tmp_path / "link", tmp_path / "current"
    link.symlink_to(project / "run" / "queue")
    current.symlink_to(project)
    (tmp_path / "third").symlink_to(tmp_path / "elsewhere")
    places = [link, project / "run" / "queue", current / "run" / "queue", tmp_path / "third"]
    for named in (project, current):
        monkeypatch.setenv(finder.PROJECT, str(named))
        monkeypatch.setattr(settings_module, "_loaded", None)
        testing._end()
        testing._begin()
        for place in places:
            queue = Queue(str(place))
            assert queue.layout.path.startswith(testing.store())
            queue.clear()
            for helper in (testing.queue, testing.clear_queue):
                with pytest.raises(testing.RealQueueRefused):
                    helper(str(place))
        assert Queue(str(link)).layout == testing.queue().layout
    assert real_mail(project) == [1, 1, 1]


@pytest.fixture
def mounted(project: Path, tmp_path: Path) -> Path:
    """A volume with the project's queue, to which a link leads."""
    volume = tmp_path / "mnt"
    volume.mkdir()
    (project / "run" / "queue").rename(volume / "queue")
    (project / "run" / "queue").symlink_to(volume / "queue")
    return volume


def test_a_queue_that_is_a_link_itself_is_the_settings_where_it_leads(project: Path, mounted: Path) -> None:
    with pytest.raises(testing.RealQueueRefused):
        testing.clear_queue(str(mounted / "queue"))
    Queue(str(mounted / "queue")).clear()
    assert Queue(str(mounted / "queue")).layout == Queue("run/queue").layout == testing.queue().layout
    assert real_mail(project) == [1, 1, 1]


@pytest.mark.parametrize("by", ["call", "variable"])
def test_no_store_is_where_a_link_leads_a_queue_of_the_settings(
    project: Path, mounted: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "variable":
        monkeypatch.setenv(test_store.VARIABLE, str(mounted))
    with pytest.raises(testing.RealQueueRefused, match="give another folder"):
        testing.store(str(mounted) if by == "call" else None)
    assert real_mail(project) == [1, 1, 1]


def test_an_answer_to_automatic_mail_is_not_kept_as_it_would_not_be_sent(project: Path) -> None:
    client = testing.RouterConversation("ann@x", "hello")
    client.begin()
    relay = Relay("127.0.0.1", 9)
    for head in ("Precedence: bulk", "Precedence: first-class"):
        relay.reply(MailRequest("p", "ann@x", "b@x", f"{head}\n\n"), "b@x", "Re", head)
    assert [str(client.queue.get(key)).count("first-class") for key in client.queue.keys()] == [1]  # noqa: SIM118


def test_whose_queue_it_is_tests_empty_none_outside_of_their_store(project: Path, tmp_path: Path) -> None:
    another = create_queue(str(tmp_path / "another" / "run" / "queue"))
    Queue(another.path).push(b"Subject: real\n\n")
    client = testing.RouterConversation("ann@x", "hello")
    client.queue = Queue(another.path)
    inside = Path(testing.store(), "link")
    inside.symlink_to(another.path)
    for refused in (
        client.begin,
        Queue(another.path).clear,
        Queue(str(inside)).clear,
        lambda: testing.clear_queue(another.path),
    ):
        with pytest.raises(testing.RealQueueRefused, match=r"not in the tests' store .*MAILDEFER_TEST_STORE"):
            refused()
    assert len(os.listdir(another.new)) == 1
    assert not testing.clear_queue("run/queue")
    assert len(os.listdir(another.new)) == 1


def test_a_file_outside_of_the_store_is_refused_as_a_folder_is(tmp_path: Path) -> None:
    shelf = tmp_path / "states"  # as Python 3.13 makes it
    shelf.touch()
    with pytest.raises(testing.RealQueueRefused, match="not in the tests' store"):
        test_store.refuse_to_empty(str(shelf))


@pytest.mark.parametrize("kind", [DirectoryStorage, ShelveStorage])
def test_states_outside_of_the_store_are_not_forgotten(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[DirectoryStorage | ShelveStorage],
) -> None:
    states = kind(str(tmp_path / "states"))
    states.set("app.first", "ann@x", "CONFIRMED")
    monkeypatch.setattr(Router, "STATE_STORE", states)
    with pytest.raises(testing.RealQueueRefused, match="not in the tests' store"):
        testing.RouterConversation("ann@x", "hello").begin()
    assert states.get("app.first", "ann@x") == "CONFIRMED"
