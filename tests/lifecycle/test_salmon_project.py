"""A project as Salmon's users have it, with nothing changed but its imports: `app/`, `config/`, one `start`."""

from __future__ import annotations

import os
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from maildefer.host.identity import pid_exists
from tests.lifecycle.project import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.lifecycle

SETTINGS = """
relay_config = {'host': 'localhost', 'port': 8825}
receiver_config = {'host': '127.0.0.1', 'port': PORT}
handlers = ['app.handlers.sample']
router_defaults = {'host': '.+'}
"""
BOOT = """
from config import settings
from maildefer.routing import Router
from maildefer.server import Relay, LMTPReceiver
from maildefer import queue

settings.relay = Relay(host=settings.relay_config['host'], port=settings.relay_config['port'], debug=1)
settings.receiver = LMTPReceiver(settings.receiver_config['host'], settings.receiver_config['port'])
Router.defaults(**settings.router_defaults)
Router.load(settings.handlers)
Router.RELOAD = True
Router.UNDELIVERABLE_QUEUE = queue.Queue("run/undeliverable")
"""
SAMPLE = """
from maildefer.routing import route, route_like
from config import settings

def note(text):
    with open("notes", "a") as file:
        file.write(text + "\\n")

@route("(address)@(host)", address=".+")
def START(message, address=None, host=None):
    note(f"START {address} {host}")
    return NEW_USER

@route_like(START)
def NEW_USER(message, address=None, host=None):
    note(f"NEW_USER {settings.relay.port}")
    return NEW_USER
"""


def maildefer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maildefer.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", str(tmp_path / "runtime"))
    for variable in ("MAILDEFER_SETTINGS_MODULE", "SALMON_SETTINGS_MODULE"):
        monkeypatch.delenv(variable, raising=False)
    port = free_port()
    for path, text in {
        "config/settings.py": SETTINGS.replace("PORT", str(port)),
        "config/boot.py": BOOT,
        "app/handlers/sample.py": SAMPLE,
    }.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    for folder in ("config", "app", "app/handlers"):
        Path(folder, "__init__.py").touch()
    yield port
    maildefer("stop", "--all", "run", "--force")


def noted(count: int) -> list[str]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        lines = Path("notes").read_text().splitlines() if os.path.exists("notes") else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"not {count} lines in time")


def test_one_command_takes_and_handles_the_mail_of_a_salmon_project(port: int) -> None:
    started = maildefer("start")
    assert started.returncode == 0, started.stderr
    for count in (1, 2):
        with smtplib.LMTP("127.0.0.1", port, timeout=PATIENCE_SECONDS) as client:
            client.sendmail("ann@example.org", ["bob@osb.example"], "Subject: hi\r\n\r\nhello\r\n")
        noted(count)
    assert noted(2) == ["START bob osb.example", "NEW_USER 8825"]
    assert maildefer("status", "--pid", "run/smtp.pid").returncode == 0
    assert maildefer("stop").returncode == 0
    assert maildefer("status", "--pid", "run/smtp.pid").returncode != 0


def test_what_a_handler_has_started_ends_with_its_receiver(port: int) -> None:
    sample = Path("app/handlers/sample.py")
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3600)']).pid"
    text = sample.read_text().replace('note(f"START {address} {host}")', f"note(str({child}))")
    sample.write_text("import subprocess, sys\n" + text)
    assert maildefer("start").returncode == 0
    with smtplib.LMTP("127.0.0.1", port, timeout=PATIENCE_SECONDS) as client:
        client.sendmail("ann@example.org", ["bob@osb.example"], "Subject: hi\r\n\r\nhello\r\n")
    pid = int(noted(1)[0])
    assert pid_exists(pid)
    assert maildefer("stop").returncode == 0
    eventually(lambda: not pid_exists(pid), "it has ended")


def test_the_routes_of_a_salmon_project_are_shown(port: int) -> None:
    shown = maildefer("routes", "app.handlers.sample", "--test", "bob@osb.example")
    assert (shown.returncode, "address='bob' host='osb.example'" in shown.stdout) == (0, True)
