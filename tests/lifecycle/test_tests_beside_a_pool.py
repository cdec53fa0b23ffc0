"""The tests of a project run beside its sink, front end and pool, in the order that Salmon's documentation has them."""

from __future__ import annotations

import json
import os
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from tests.lifecycle.project import eventually

pytestmark = pytest.mark.lifecycle

SALMON_STYLE = '''
from maildefer.testing import *
from maildefer.queue import Queue
from conf import testing
from workers import blog

relay = relay(port=PORT)
client = RouterConversation("somedude@localhost", "requests_tests")


def setup_function():
    clear_queue()
    clear_queue(TEST_QUEUE)
    clear_queue("run/posts")


def test_a_post_is_answered(tmp_path, monkeypatch):
    """maildefer log and start are running."""
    monkeypatch.setattr(blog, "ROOT", str(tmp_path))
    client.begin()
    client.say("tester@osb.localhost", "Test that it posts.", "tester@osb.localhost")
    assert queue().count() == Queue(TEST_QUEUE).count() == 1
    assert delivered("is published", to_queue=queue())
    Queue("run/posts").push("Subject: x\\n\\n")
    assert queue("run/posts").count() == 1


def test_what_is_for_nobody_sends_nothing():
    client.begin()
    client.say("tester@badplace.notinterwebs", "Relay should not happen")
    assert queue().count() == 0
    assert relay.port == PORT
'''


def maildefer(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maildefer.cli", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=90, check=False)


def heeds_the_pause(project: Path) -> bool:
    lines = map(json.loads, maildefer(project, "status", "--json").stdout.splitlines())
    pools = [line["status"] for line in lines if line["kind"] == "supervise" and line["status"]]
    queues = [queue for pool in pools for queue in pool["queues"] if queue["queue"] == "run/queue"]
    return any(queue["paused_everywhere"] for queue in queues)


def waiting(project: Path) -> int:
    return len(os.listdir(project / "run" / "queue" / "new"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, int]]:
    """A new project with its three commands running, and the port of its front end."""
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    assert maildefer(tmp_path, "new", "blog").returncode == 0
    blog = tmp_path / "blog"
    front, sink = free_port(), free_port()
    settings = (blog / "conf" / "settings.py").read_text()
    (blog / "conf" / "settings.py").write_text(
        settings.replace("8823", str(front)).replace("8825", str(sink))
    )
    pool = None
    try:
        for command in (("log", "--port", str(sink)), ("start",)):
            done = maildefer(blog, *command)
            assert done.returncode == 0, done.stderr
        pool = subprocess.Popen(
            [sys.executable, "-m", "maildefer.cli", "supervise", "--workers", "2"],
            cwd=blog,
            stderr=subprocess.DEVNULL,
        )
        yield blog, front
    finally:
        maildefer(blog, "stop", "--all", "run")
        if pool is not None:
            pool.kill()
            pool.wait()


def test_the_tests_of_a_project_leave_the_mail_alone_that_waits_in_its_queues(
    project: tuple[Path, int],
) -> None:
    blog, port = project
    (blog / "tests" / "test_as_with_salmon.py").write_text(SALMON_STYLE.replace("PORT", str(port)))
    eventually(lambda: maildefer(blog, "pause").returncode == 0, "the queue is paused")
    eventually(lambda: heeds_the_pause(blog), "the pool is up, and heeds that")
    for number in range(3):
        with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
            client.sendmail(
                "ann@example.org", [f"post{number}@osb.localhost"], "Subject: hi\r\n\r\nhello\r\n"
            )
    assert waiting(blog) == 3
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"],
        cwd=blog,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert waiting(blog) == 3
    assert not os.path.exists(blog / "run" / "posts" / "new") or not os.listdir(
        blog / "run" / "posts" / "new"
    )
    assert maildefer(blog, "resume").returncode == 0
    eventually(lambda: (blog / "run" / "blog" / "post2.html").exists() and not waiting(blog), "it is handled")
    assert not (blog / "run" / "blog" / "tester.html").exists()


def test_a_debug_line_of_a_new_projects_handler_is_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    assert maildefer(tmp_path, "new", "blog").returncode == 0
    blog, log = tmp_path / "blog", tmp_path / "log"
    (blog / "workers" / "index.py").write_text(
        "import logging\n"
        "from maildefer.routing import route, stateless\n"
        '@route("(post_name)@osb\\\\.(host)")\n'
        "@stateless\n"
        "def START(message, post_name=None, host=None):\n"
        '    logging.debug("Got message from %s", message["from"])\n'
    )
    with open(log, "wb") as stderr:
        pool = subprocess.Popen(
            [sys.executable, "-m", "maildefer.cli", "supervise", "--workers", "1"], cwd=blog, stderr=stderr
        )
    try:
        eventually((blog / "run" / "posts" / "new").is_dir, "the pool has made its queues")
        message = "From: ann@example.org\nSubject: hi\n\nhello\n"
        subprocess.run(
            [sys.executable, "-m", "maildefer.cli", "push", "run/posts", "--recipient", "hi@osb.localhost"],
            cwd=blog,
            input=message.encode(),
            check=True,
        )
        eventually(lambda: b"Got message from ann@example.org" in log.read_bytes(), "it is logged")
    finally:
        pool.terminate()
        pool.wait(60)
