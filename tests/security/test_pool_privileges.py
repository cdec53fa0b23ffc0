"""A pool that root starts: its front end becomes somebody else, its workers stay who they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks import processes
from tests.lifecycle.commands import answered, maildefer
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually
from tests.security.test_privileges import GROUP, GUEST, status
from tests.support.other_users import told_by

pytestmark = [
    pytest.mark.lifecycle,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else"),
]


@pytest.fixture
def project() -> Iterator[Project]:
    """Where others may go, with a queue that the front end's group may write `tmp/` and `new/` of."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    made = Project(place / "project")
    made.edit(
        "conf/settings.py", "router_def", 'receiver_config = {"host": "127.0.0.1", "port": 0}\nrouter_def'
    )
    (made.path / "run").chmod(0o755)
    for folder, _, files in os.walk(made.queue.path):
        os.chown(folder, -1, GROUP)
        os.chmod(folder, 0o2770 if folder in (made.queue.tmp, made.queue.new) else 0o2750)
        for file in files:
            os.chown(f"{folder}/{file}", -1, GROUP)
            os.chmod(f"{folder}/{file}", 0o660)
    yield made
    shutil.rmtree(place)


@pytest.mark.parametrize("how", ["command line", "settings"])
def test_a_pools_front_end_becomes_another_user_and_its_workers_do_not(project: Project, how: str) -> None:
    plan: dict[str, Any] = {"user": str(GUEST), "group": str(GROUP)}
    if how == "settings":
        project.edit("conf/settings.py", '"port": 0}', f'"port": 0, "user": "{GUEST}", "group": "{GROUP}"}}')
        plan = {}
    pool = Pool(project, intake=True, **plan)
    pool.start()
    try:
        pool.await_ready()
        pool.await_event("intake.listening", seconds=30)
        assert status(pool.child("intake"))["Uid"] == [str(GUEST)] * 4
        assert all(status(pid)["Uid"] == ["0"] * 4 for pid in pool.worker_pids())
        send(pool)
        eventually(lambda: project.notes("end"), "it is handled", 30)
        eventually(project.is_empty, "and acked", 30)
        project.edit("workers/front.py", '@route("(what)', '@route("new.recipient@test")\n@route("(what)')
        project.edit(
            "workers/front.py", "what: str, argument: str)", 'what: str = "quick", argument: str = "")'
        )
        pool.signal(signal.SIGHUP)
        eventually(lambda: accepts(pool, "new.recipient@test"), "it reads the new routes all the same", 30)
        assert pool.stop(30) == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()


def test_a_broken_front_end_reaches_no_process_but_its_own(project: Project) -> None:
    pool = Pool(project, intake=True, user=str(GUEST), group=str(GROUP))
    pool.start()
    try:
        pool.await_ready()
        pool.await_event("intake.listening", seconds=30)
        assert pool.process is not None
        own = set(processes.tree(pool.child("intake")))
        others = [pid for pid in processes.tree(pool.process.pid) if pid not in own]
        assert len(others) >= 4, "supervisor, keeper, scout, workers"
        assert told_by(GUEST, GROUP, lambda: [pid for pid in others if reached(pid)]) == []
        assert told_by(GUEST, GROUP, lambda: [pid for pid in own if reached(pid)]) == list(own)
        held = {name for pid in own for name in written_to(pid)}
        made = {"memfd:blocks"}  # by itself, for its writer
        assert held == {"memfd:connections", "memfd:intake report", "a.log"} | made, "what it was given"
        assert pool.stop(30) == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()


def written_to(pid: int) -> Iterator[str]:
    """The names of files, in memory or not, that the process may write to by what it has open."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            flags = int(Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().split()[3], 8)
            if link.is_file() and flags & os.O_ACCMODE != os.O_RDONLY:
                yield os.path.basename(os.readlink(link)).removesuffix(" (deleted)")


def reached(pid: int) -> bool:
    """By a signal, or a look at what it has in its memory or was started with."""

    def signalled() -> None:
        os.kill(pid, 0)

    for act in (signalled, Path(f"/proc/{pid}/mem").read_bytes, Path(f"/proc/{pid}/environ").read_bytes):
        with suppress(OSError):
            act()
            return True
    return False


def test_a_front_end_of_nobody_keeps_the_pool_from_starting(project: Project) -> None:
    pool = Pool(project, intake=True, user="no-such-user")
    pool.start()
    assert pool.wait(30) == 78
    assert "no-such-user" in pool.log()


def test_a_front_end_that_may_not_push_keeps_the_pool_from_starting(project: Project) -> None:
    os.chmod(project.queue.tmp, 0o2750)
    pool = Pool(project, intake=True, user=str(GUEST), group=str(GROUP))
    pool.start()
    assert pool.wait(30) == 78
    log = pool.log()
    assert f"may not write to {project.queue.tmp} as --user {GUEST} --group {GROUP}" in log
    assert "child.started" not in log


def test_a_supervisor_without_privilege_starts_no_front_end_of_another_user(project: Project) -> None:
    pool = Pool(project, intake=True, user=str(GUEST), group=str(GROUP))
    command = ["setpriv", "--bounding-set=-setuid,-setgid", sys.executable, "-m", "maildefer.pool"]
    ended = subprocess.run(
        [*command, json.dumps(pool._plan)],
        cwd=project.path,
        env=pool.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 78
    assert f"may not become user {GUEST}, group {GROUP}" in ended.stderr
    assert "child.started" not in ended.stderr


@pytest.mark.slow
def test_a_front_end_that_dies_again_and_again_is_degraded_and_not_ready(project: Project) -> None:
    pool = Pool(project, intake=True, user=str(GUEST), group=str(GROUP))
    pool.start()
    try:
        pool.await_ready()
        eventually(lambda: maildefer(pool, "probe", "--ready").returncode == 0, "it is ready", 30)
        os.chmod(project.queue.path, 0o2700)
        os.kill(pool.child("intake"), signal.SIGKILL)
        pool.await_event("pool.throttled", seconds=60)
        told = answered(pool, "status")
        assert told.returncode == 4, told
        assert "its front end intake smtp://127.0.0.1:" in told.stdout
        assert "times in a row" in told.stderr
        unready = answered(pool, "probe", "--ready")
        assert (unready.returncode, "times in a row" in unready.stderr) == (1, True)
        assert answered(pool, "probe", "--live").returncode == 0
        os.chmod(project.queue.path, 0o2750)
        pool.signal(signal.SIGHUP)
        assert pool.stop(30) == 0
    finally:
        if pool.process is not None and pool.process.poll() is None:
            pool.kill_tree()


def send(pool: Pool, recipient: str = "quick@test") -> None:
    address = str(pool.events("child.started", kind="intake")[-1]["address"])
    host, _, port = address.removeprefix("smtp://").rpartition(":")
    with smtplib.SMTP(host, int(port), timeout=30) as client:
        client.sendmail("ann@example.org", [recipient], b"Subject: a test\r\n\r\nHello\r\n")


def accepts(pool: Pool, recipient: str) -> bool:
    try:
        send(pool, recipient)
    except smtplib.SMTPException:
        return False
    return True
