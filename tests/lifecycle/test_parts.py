"""The parts of a pool do not trust each other: what each is given, and what becomes of one that is broken."""

from __future__ import annotations

import os
import signal
import smtplib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from benchmarks import processes
from maildefer.cli.sink import Sink
from maildefer.host.environment import listed
from maildefer.server import SMTPReceiver
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import Pool
from tests.lifecycle.project import PATIENCE_SECONDS, Project, eventually

pytestmark = pytest.mark.lifecycle
ROOT = Path(__file__).parent.parent.parent
SECRET, NAMED = {"AWS_SECRET": "key-of-all"}, {"BLOG_DB_URL": "db://blog"}
POLICY = """
import os
URL = os.environ["BLOG_DB_URL"]

def accept(*asked):
    return f"554 5.7.1 {URL}" if asked[2] == "url@test" else True
"""


@pytest.fixture
def fronted(project: Project) -> Project:
    project.edit(
        "conf/settings.py", "router_def", 'receiver_config = {"host": "127.0.0.1", "port": 0}\nrouter_def'
    )
    return project


# Their environment


def environment(pid: int) -> dict[str, str]:
    pairs = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_a_pools_front_end_and_all_that_it_starts_get_no_variable_but_those_of_a_list_and_those_named(
    fronted: Project, start: Start
) -> None:
    (fronted.path / "conf" / "policy.py").write_text(POLICY)
    (fronted.path / "tokens").write_text("a-token-that-is-long\n")
    (fronted.path / "tokens").chmod(0o600)
    said = '"port": 0, "policy": "conf.policy.accept", "environment": ["BLOG_DB_URL"]}'
    fronted.edit(
        "conf/settings.py", '"port": 0}', f'{said}\nweb_config = {{"token_file": "tokens", "port": 0}}'
    )
    pool = start(intake=True, environ=SECRET | NAMED)
    pool.await_event("intake.listening", 2)
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="db://blog"):
        send(pool, "url@test")
    intake, web = processes.tree(pool.child("intake")), processes.tree(pool.child("web"))
    assert len(intake) >= 4, "with its writer and two policies"
    assert len(web) == 2
    for pid in intake:
        assert environment(pid) == listed(NAMED, pool.environ), pid
    for pid in web:
        assert environment(pid) == listed((), pool.environ), pid
    assert SECRET.items() <= environment(pool.worker_pids()[0]).items(), "which handlers may need"


def test_a_policy_that_lacks_a_variable_says_how_to_give_it_one(fronted: Project, start: Start) -> None:
    (fronted.path / "conf" / "policy.py").write_text(POLICY)
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "policy": "conf.policy.accept"}')
    pool = start(intake=True, environ=NAMED)
    reason = str(pool.await_event("policy.failed")["reason"])
    assert """name it in receiver_config["environment"] = ['BLOG_DB_URL']""" in reason
    fronted.edit("conf/settings.py", 'accept"}', 'accept", "environment": ["BLOG_DB_URL"]}')
    pool.signal(signal.SIGHUP)
    eventually(lambda: accepts(pool, "quick@test"), "after a reload it is loaded")


def test_an_environment_that_is_no_list_of_names_keeps_the_pool_from_starting(
    fronted: Project, start: Start
) -> None:
    fronted.edit("conf/settings.py", '"port": 0}', '"port": 0, "environment": ["A=b"]}')
    pool = start(ready=False, intake=True)
    assert pool.wait() == 78
    assert "environment is ['A=b']: give names of variables" in pool.log()


@contextmanager
def by_boot_module(folder: Path) -> Iterator[int]:
    receiver = SMTPReceiver(port=0, queue=str(folder / "queue"), environment=["BLOG_DB_URL"])
    receiver.start()
    try:
        assert receiver._process is not None
        yield receiver._process.pid
    finally:
        receiver.close()


@contextmanager
def by_sink(folder: Path) -> Iterator[int]:
    sink = Sink("127.0.0.1", 0, str(folder / "queue"))
    sink.start()
    try:
        assert sink._process is not None
        yield sink._process.pid
    finally:
        sink.close()


@contextmanager
def by_stdio(folder: Path) -> Iterator[int]:
    code = "import sys; from maildefer.cli.stdio import speak; sys.exit(speak(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(folder / "queue")]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as speaking:
        assert speaking.stdin is not None
        assert speaking.stdout is not None
        assert speaking.stdout.readline().startswith(b"220 ")
        yield processes.tree(speaking.pid)[1]
        speaking.stdin.close()


@pytest.mark.parametrize("launched", [by_boot_module, by_sink, by_stdio])
def test_no_other_front_end_gets_its_starters_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: Callable[[Path], AbstractContextManager[int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (SECRET | NAMED).items():
        monkeypatch.setenv(name, value)
    with launched(tmp_path) as pid:
        for each in processes.tree(pid):
            found = environment(each)
            assert not SECRET.keys() & found.keys()
            assert (NAMED.keys() <= found.keys()) is (launched is by_boot_module)


def address(pool: Pool) -> tuple[str, int]:
    told = pool.await_event("child.started", kind="intake")["address"]
    host, _, port = told.removeprefix("smtp://").rpartition(":")
    return host, int(port)


def send(pool: Pool, recipient: str) -> None:
    with smtplib.SMTP(*address(pool), timeout=PATIENCE_SECONDS) as client:
        client.sendmail("ann@example.org", [recipient], b"Subject: a test\r\n\r\nHello\r\n")


def accepts(pool: Pool, recipient: str) -> bool:
    try:
        send(pool, recipient)
    except (smtplib.SMTPException, OSError):
        return False
    return True
