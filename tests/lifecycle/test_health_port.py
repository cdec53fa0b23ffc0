"""The port of `health_config`, of a real pool."""

from __future__ import annotations

import http.client
import os
import signal
import socket
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from tests.lifecycle.commands import answered, maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import Project, eventually
from tests.support.monitor import FileConnection, get

pytestmark = pytest.mark.lifecycle


def answer(pool: Pool, path: str) -> tuple[int, str]:
    """Of a pool that listens on `run/health.sock`; 0 where nobody answers."""
    try:
        return get(FileConnection(pool.project.path / "run/health.sock"), path)
    except OSError:
        return 0, ""


def soon(pool: Pool, path: str, status: int, words: str = "") -> None:
    def is_so() -> bool:
        found, text = answer(pool, path)
        return found == status and words in text

    eventually(is_so, f"{path} is {status} {words}")


@pytest.mark.ttl(60)
def test_a_pool_is_live_and_ready_by_http_until_its_drain_is_over(project: Project, start: Start) -> None:
    project.edit(
        "conf/settings.py",
        '"""\n',
        '"""\nhealth_config = {"socket": "run/health.sock", "socket_mode": "0660"}\n',
    )
    pool = start()
    soon(pool, "/ready", 200)
    assert os.stat(project.path / "run/health.sock").st_mode & 0o777 == 0o660
    soon(pool, "/live", 200, "live\n")
    project.push("quick", 3)
    eventually(project.is_empty, "they are handled")
    soon(pool, "/metrics", 200, 'outcome="acked",queue="run/queue"} 3.0')
    soon(pool, "/metrics", 200, 'maildefer_lease_held{queue="run/later"} 1.0')
    os.kill(pool.child("monitor"), signal.SIGKILL)
    pool.await_event("child.died", kind="monitor")
    soon(pool, "/ready", 200)
    pool.signal(signal.SIGTSTP)
    soon(pool, "/ready", 503, "paused")
    pool.signal(signal.SIGCONT)
    soon(pool, "/ready", 200)
    os.kill(pool.pid, signal.SIGSTOP)
    soon(pool, "/live", 503, "no answer")
    os.kill(pool.pid, signal.SIGCONT)
    project.push("wait")
    os.kill(eventually(lambda: project.notes("start")[3:], "a handler has a message")[0].pid, signal.SIGKILL)
    soon(pool, "/metrics", 200, "maildefer_worker_deaths_total 1.0")
    soon(pool, "/metrics", 200, 'maildefer_reclaimed_total{queue="run/queue"} 1.0')
    soon(pool, "/metrics", 200, 'outcome="acked",queue="run/queue"} 3.0')  # the dead worker's, too
    eventually(lambda: project.notes("start")[4:], "another worker has it")
    pool.signal(signal.SIGTERM)
    soon(pool, "/ready", 503, "draining")
    soon(pool, "/live", 200)
    project.go()
    assert pool.wait() == 0
    assert answer(pool, "/live")[0] == 0


def test_a_pool_whose_port_is_taken_says_so_serves_and_listens_once_it_is_free(
    project: Project, start: Start
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        pool = start(environ={"MAILDEFER_HEALTH": f"127.0.0.1:{port}"})
        error = pool.await_event("monitor.failed")["error"]
        assert f"can't listen on 127.0.0.1:{port}" in error
        assert "MAILDEFER_HEALTH" in error
        project.push("quick")
        eventually(project.is_empty, "it is handled")
        assert answered(pool, "probe", "--ready").returncode == 0
        status = answered(pool, "status")
        assert status.returncode == 4
        assert f"its monitor: can't listen on 127.0.0.1:{port}" in status.stderr
    pool.await_event("monitor.listening")
    assert "error" not in pool.status()["front_end_groups"][-1]


def test_a_reload_moves_the_port_and_the_command_and_counts_go_on(project: Project, start: Start) -> None:
    ports = [free_port(), free_port()]

    def at(port: int) -> str:
        try:
            return get(http.client.HTTPConnection("127.0.0.1", port, timeout=30), "/metrics")[1]
        except OSError:
            return ""

    project.edit("conf/settings.py", '"""\n', f'"""\nhealth_config = {{"port": {ports[0]}}}\n')
    pool = start()
    project.push("quick", 3)
    eventually(lambda: 'outcome="acked",queue="run/queue"} 3.0' in at(ports[0]), "it answers")
    project.edit("conf/settings.py", str(ports[0]), str(ports[1]))
    assert maildefer(pool, "reload").returncode == 0
    eventually(lambda: 'outcome="acked",queue="run/queue"} 3.0' in at(ports[1]), "at the other port, too")
    assert at(ports[0]) == ""
    project.edit(
        "conf/settings.py",
        '"""\nhealth',
        '"""\nalerts = ["/bin/sh", "-c", "echo $ALERT_TEXT >> told"]\nhealth',
    )
    assert maildefer(pool, "reload").returncode == 0
    pool.await_event("monitor.listening", 3)
    eventually(lambda: at(ports[1]), "at the same port")
    # Of what lasts: what was counted before its first look, which may have failed, it tells nothing of.
    project.edit("workers/front.py", "@route(", "no python\n@route(")
    assert maildefer(pool, "reload").returncode == 78
    eventually((project.path / "told").exists, "the command is told")
    project.edit("workers/front.py", "no python\n", "")
    assert not pool.events("intake.stale")
    project.edit("conf/settings.py", f'"port": {ports[1]}', '"socket": "run/health.sock"')
    assert maildefer(pool, "reload").returncode == 0
    pool.await_event("intake.stale")
    assert at(ports[1])
    assert pool.stop() == 0


def test_a_pool_that_counts_nothing_has_no_monitor_before_a_restart(project: Project, start: Start) -> None:
    pool = start(workers=1)
    project.edit("conf/settings.py", '"""\n', '"""\nhealth_config = {"port": 1}\n')
    assert maildefer(pool, "reload").returncode == 0
    assert "restart" in pool.await_event("intake.stale")["reason"]
    assert not pool.events("child.started", kind="monitor")


def test_a_pool_without_an_address_has_no_monitor(project: Project, start: Start) -> None:
    pool = start(workers=1)
    kinds = {event["kind"] for event in pool.events("child.started")}
    assert kinds == {"keeper", "scout", "template"}


def test_an_address_that_is_none_ends_the_start_with_its_line(project: Project, start: Start) -> None:
    project.edit("conf/settings.py", '"""\n', '"""\nhealth_config = {"prot": 8827}\n')
    pool = start(ready=False)
    assert pool.wait() == 78
    error = pool.events("application.broken")[-1]["error"]
    line = (
        Path(project.path / "conf/settings.py")
        .read_text()
        .splitlines()
        .index('health_config = {"prot": 8827}')
    )
    assert f"conf/settings.py:{line + 1}: health_config is {{'prot': 8827}}" in error


def test_a_command_is_told_of_a_burial_by_a_monitor_without_a_port(project: Project, start: Start) -> None:
    project.edit(
        "conf/settings.py",
        '"""\n',
        '"""\nalerts = ["/bin/sh", "-c", "echo $ALERT_EVENT $ALERT_TEXT >> told; sleep 600"]\n',
    )
    project.edit("conf/settings.py", "alerts =", 'alert_limits = {"timeout_seconds": 3}\nalerts =')
    pool = start()
    project.push("reject")
    assert "killed" in pool.await_event("alert.failed")["error"]
    assert (project.path / "told").read_text().startswith("buried ")
    assert "aiohttp" not in Path(f"/proc/{pool.child('monitor')}/maps").read_text()
    project.push("quick")
    eventually(lambda: not project.names(), "the pool goes on")
