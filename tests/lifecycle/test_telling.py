"""What a pool tells of itself: pid file, status, systemd's socket, process titles, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.control.requests import read_leases
from maildefer.host import pidfile
from maildefer.host.identity import this_host
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle


def test_the_pid_file_names_the_supervisor_and_what_it_serves(
    project: Project, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = start()
    lease = pool.status()["queues"][0]["lease"]
    content = eventually(
        lambda: os.path.exists(pool.pidfile) and (read := pidfile.read(pool.pidfile)).lease == lease and read,
        "the pid file, with the lease",
    )
    assert isinstance(content, pidfile.PidFile)
    first = Path(pool.pidfile).read_text().splitlines()[0]
    assert first == str(pool.pid) == str(content.pid)
    assert content.kind == "supervise"
    assert content.queues == tuple(layout.path for layout in project.layouts.values())
    monkeypatch.setenv("MAILDEFER_HOST_ID", pool.host)
    assert pidfile.verify(content, this_host()) == "running"
    monkeypatch.setenv("MAILDEFER_HOST_ID", "b")
    assert pidfile.verify(content, this_host()) == "other-host"
    pool.kill_tree()
    monkeypatch.setenv("MAILDEFER_HOST_ID", pool.host)
    assert pidfile.verify(pidfile.read(pool.pidfile), this_host()) == "stale"


def test_a_second_supervisor_with_the_same_pid_file_is_refused(project: Project) -> None:
    first = Pool(project)  # only its environment is wanted
    command = [sys.executable, "-m", "maildefer.cli", "supervise", "--workers", "1", "--pid", first.pidfile]
    environ = first.environ
    one = subprocess.Popen(command, cwd=project.path, env=environ, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: os.path.exists(first.pidfile), "the first one runs")
        two = subprocess.run(
            command, cwd=project.path, env=environ, capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        assert two.returncode == 1
        assert str(one.pid) in two.stderr
        assert one.poll() is None
    finally:
        one.terminate()
        assert one.wait(PATIENCE_SECONDS) == 0


def test_a_pool_tells_other_hosts_its_rate(project: Project, start: Start) -> None:
    start()
    queue = next(iter(project.layouts.values())).path
    rate = eventually(
        lambda: [
            told for lease in read_leases(queue) if (told := lease.status.get("rate_per_second")) is not None
        ],
        "a rate in the status file",
    )
    assert isinstance(rate[0], float)


def test_status_tells_what_each_worker_is_on(project: Project, start: Start) -> None:
    pool = start(workers=2)
    [key] = project.push("wait")
    eventually(lambda: project.notes("start"), "the handler begins")
    busy = [worker for worker in pool.status()["workers"] if worker["state"] == "handling"]
    assert [worker["pid"] for worker in busy] == [project.notes("start")[0].pid]
    assert busy[0]["entry"].startswith(key)
    assert busy[0]["seconds"] >= 0
    assert pool.status()["wanted"] == 2
    assert all(queue["may_claim"] for queue in pool.status()["queues"])
    project.go()


def test_every_process_says_in_its_title_what_it_is(start: Start) -> None:
    pool = start(workers=2)

    def titles() -> list[str]:
        return sorted(
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            for pid in pool.tree()
        )

    patterns = [
        r"maildefer: keeper run/queue run/later",
        r"maildefer: scout run/queue run/later",
        r"maildefer: supervisor /.*",
        r"maildefer: template run/queue run/later",
        r"maildefer: worker 1 run/queue run/later",
        r"maildefer: worker 2 run/queue run/later",
    ]
    eventually(lambda: all(map(re.match, patterns, titles())), "the titles")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{tmp_path}/notify")
        sock.settimeout(PATIENCE_SECONDS)
        yield sock


def test_systemd_hears_of_start_life_and_end(tmp_path: Path, manager: socket.socket, start: Start) -> None:
    environ = {"NOTIFY_SOCKET": f"@{tmp_path}/notify", "WATCHDOG_USEC": "2000000"}
    pool = start(environ=environ)
    heard: list[str] = []

    def note_deferred(wanted: str) -> None:
        while not any(line.startswith(wanted) for line in heard):
            heard.extend(manager.recv(4096).decode().splitlines())

    note_deferred("READY=1")
    note_deferred("STATUS=serving: 2 workers")
    heard.clear()
    note_deferred("WATCHDOG=1")
    assert pool.stop() == 0
    note_deferred("STOPPING=1")


@pytest.mark.slow
def test_the_watchdog_goes_hungry_while_a_handler_is_over_its_time(
    tmp_path: Path, project: Project, manager: socket.socket, start: Start
) -> None:
    environ = {"NOTIFY_SOCKET": f"@{tmp_path}/notify", "WATCHDOG_USEC": "2000000"}
    pool = start(environ=environ, settings={"handler_timeout_seconds": 0.2})
    project.push("stubborn")
    pool.await_event("worker.timed_out")
    manager.setblocking(False)
    while _received(manager):  # what was sent before
        pass
    while not pool.events("worker.died"):
        hungry = b"WATCHDOG=1" not in _received(manager)
        assert hungry or pool.events("worker.died"), "fed while a worker was past its deadline"


def test_a_broken_application_ends_the_start_with_78_and_the_reason(project: Project, start: Start) -> None:
    project.edit("workers/front.py", "def HANDLE(", "def HANDLE((")
    pool = start(ready=False)
    assert pool.wait() == 78
    [event] = pool.events("application.broken")
    assert re.search(r"workers/front\.py:\d+: syntax error", event["error"])


def test_an_unknown_queue_ends_the_start_with_78(start: Start) -> None:
    pool = start(ready=False, queues=["run/other"])
    assert pool.wait() == 78
    assert "run/other" in pool.events("application.broken")[0]["error"]


def test_a_pool_whose_workers_cannot_load_the_application_ends_with_78(
    project: Project, start: Start
) -> None:
    """The probe could load it, the workers can't: say, a resource that only one process may have."""
    project.edit(
        "conf/settings.py",
        '"""Two',
        'import sys\nif "maildefer.pool.worker.worker" in sys.modules: raise RuntimeError("no licence left")\n"""Two',
    )
    pool = start(ready=False)
    assert pool.wait() == 78
    assert "no licence left" in pool.events("application.broken")[-1]["error"]
    assert "no worker can load the application" in pool.events("pool.stopped")[-1]["reason"]


def test_a_pool_that_has_worked_goes_on_trying_when_no_worker_can_load_the_application_any_more(
    project: Project, start: Start
) -> None:
    """A killed worker's successor has the old code; a killed template's would load what a reload has refused."""
    pool = start(workers=1)
    project.edit("workers/front.py", "def HANDLE(", "def HANDLE((")
    pool.signal(signal.SIGHUP)
    pool.await_event("application.broken")
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    pool.await_event("worker.started", 2)
    os.kill(pool.child("template"), signal.SIGKILL)
    pool.await_event("child.died", kind="template", how="SIGKILL")
    pool.await_event("pool.throttled", deaths=7)
    assert pool.events("pool.draining") == []
    os.kill(pool.worker_pids()[0], signal.SIGKILL)
    [key] = project.push()
    project.edit("workers/front.py", "def HANDLE((", "def HANDLE(")
    pool.signal(signal.SIGHUP)
    eventually(project.is_empty, "it is handled")
    assert project.starts() == {key: 1}


def test_a_pool_that_still_forks_workers_hears_that_it_is_to_stop(project: Project, start: Start) -> None:
    project.edit(  # a quarter of a minute for all of them, however slow we are
        "conf/settings.py",
        '"""Two',
        'import os, sys, time\nif "maildefer.pool.worker.worker" in sys.modules: '
        'os.register_at_fork(before=lambda: time.sleep(0.05))\n"""Two',
    )
    pool = start(workers=300, ready=False)
    pool.await_event("worker.started", 10)
    pool.signal(signal.SIGTERM)
    pool.await_event("pool.draining")
    assert len(pool.events("worker.started")) < 300
    assert pool.wait() == 0


def test_more_workers_than_a_host_has_use_for_are_refused(project: Project, start: Start) -> None:
    assert start(workers=100_000, ready=False).wait() == 78


def test_a_pool_whose_workers_die_at_their_start_ends_with_1(project: Project, start: Start) -> None:
    project.edit(
        "conf/settings.py",
        '"""Two',
        'import os, sys\nif "maildefer.pool.worker.worker" in sys.modules: os._exit(3)\n"""Two',
    )
    pool = start(ready=False)
    assert pool.wait() == 1
    assert "no worker comes up" in pool.events("pool.stopped")[-1]["reason"]


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("workers/front.py", "def HANDLE(", "def HANDLE((", "workers/front.py"),
        (
            "conf/settings.py",
            '"""Two',
            'import sys\nif "maildefer.pool.worker.worker" in sys.modules: raise RuntimeError("none left")\n"""Two',
            "no worker can load the application",
        ),
    ],
)
def test_a_start_that_fails_says_so_on_the_terminal_too_while_the_log_is_a_file(
    project: Project, start: Start, file: str, old: str, new: str, told: str
) -> None:
    project.edit(file, old, new)
    log = project.path / "pool.log"
    pool = start(ready=False, log_file=str(log))
    assert pool.wait() == 78
    (line,) = pool.log().splitlines()
    assert line.startswith("maildefer: ")
    assert told in line
    assert f"more in {log}" in line
    assert told in log.read_text()


def test_a_log_file_of_the_settings_that_cannot_be_opened_ends_a_start(
    project: Project, start: Start
) -> None:
    project.edit("conf/settings.py", '"""Two', 'log_file = "nowhere/pool.log"\n"""Two')
    pool = start(ready=False)
    assert pool.wait() == 78
    assert "the log can't go to " in pool.log()
    assert pool.events("pool.started") == []


def test_a_reload_with_a_log_file_that_cannot_be_opened_is_refused(project: Project, start: Start) -> None:
    pool = start()
    project.edit("conf/settings.py", '"""Two', 'log_file = "nowhere/pool.log"\n"""Two')
    pool.signal(signal.SIGHUP)
    eventually(lambda: pool.events("application.broken"), "it is refused")
    assert "the log can't go to " in pool.events("application.broken")[0]["error"]
    assert pool.stop() == 0


def test_a_pool_that_ends_well_says_nothing_on_the_terminal(project: Project, start: Start) -> None:
    pool = start(ready=False, log_file=str(project.path / "pool.log"))
    pool.await_ready()
    assert pool.stop() == 0
    assert pool.log() == ""


def test_the_log_is_one_json_object_a_line(project: Project, start: Start) -> None:
    pool = start()
    project.push("quick", 3)
    eventually(project.is_empty, "all are handled")
    assert pool.stop() == 0
    assert all(isinstance(json.loads(line)["event"], str) for line in pool.log().splitlines())
    assert len(pool.events("attempt.ended", outcome="acked")) == 3


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(4096) + b"\n"
    except BlockingIOError:
        return b""
