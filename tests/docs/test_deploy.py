"""The systemd units: that systemd takes them, and that the front end serves what they say."""

from __future__ import annotations

import re
import shlex
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from tests.support.front_end import SECONDS, stored, wait_until
from tests.support.socket_activation import environment, service

DEPLOY = Path(__file__).parent.parent.parent / "conf" / "deploy"
UNITS = sorted((*DEPLOY.glob("*.service"), *DEPLOY.glob("*.socket")))
SERVICE = "maildefer-intake.service"
PROJECT = {
    "conf/__init__.py": "",
    "conf/settings.py": "queues = {'run/queue': ['workers.front']}\n",
    "conf/boot.py": """
from maildefer.utils import settings
from maildefer.server import SMTPReceiver
settings.receiver = SMTPReceiver(listen=["smtp:systemd:mx", "lmtp:systemd:lmtp"])
""",
    "workers/__init__.py": "",
    "workers/front.py": """
from maildefer.routing import route, stateless
@route("post@d.example")
@stateless
def START(message):
    pass
""",
}


@pytest.fixture
def installed() -> Iterator[Path]:
    """All units beside each other, for a project that is here, on a filesystem from which programs may be started."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield units_in(Path(folder))


def units_in(folder: Path) -> Path:
    program = folder / ".venv/bin/maildefer"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m maildefer "$@"\n')
    program.chmod(0o755)
    for unit in UNITS:
        (folder / unit.name).write_text(unit.read_text().replace("/srv/blog", str(folder)))
    return folder


def said(folder: Path, unit: str, name: str) -> list[str]:
    """What a unit says of something, word by word."""
    lines = (folder / unit).read_text().splitlines()
    return [word for line in lines if line.startswith(f"{name}=") for word in line.partition("=")[2].split()]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_every_line_of_a_unit(installed: Path, unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    verdict = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(installed / unit.name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints = [line for line in verdict.stderr.splitlines() if "maildefer-" in line]
    assert (verdict.returncode, complaints) == (0, [])


@pytest.mark.parametrize("unit", sorted(DEPLOY.glob("*.service")), ids=lambda unit: unit.name)
def test_the_exposure_of_a_service_is_small(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    [exposure] = re.findall(r"Overall exposure level for \S+: (\d+\.\d)", told.stdout)
    assert float(exposure) <= 2.0, told.stdout


def test_the_services_have_two_users_and_neither_is_root() -> None:
    users = {unit.name: said(DEPLOY, unit.name, "User") for unit in UNITS if unit.suffix == ".service"}
    assert users == {"maildefer-intake.service": ["mailfront"], "maildefer-pool.service": ["maildefer"]}


def test_each_socket_and_its_service_name_each_other(installed: Path) -> None:
    sockets = said(installed, SERVICE, "Sockets")
    assert sorted(sockets) == [unit.name for unit in UNITS if unit.suffix == ".socket"]
    assert {said(installed, name, "Service")[0] for name in sockets} == {SERVICE}


# The service as its unit starts it, but for the user and the confinement


class Project:
    """Its front end's sockets as the socket units bind them, here on a free port, and one file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        units = said(folder, SERVICE, "Sockets")
        self.names = ":".join(said(folder, unit, "FileDescriptorName")[0] for unit in units)
        places = [said(folder, unit, "ListenStream")[0] for unit in units]
        assert places == ["25", "/run/maildefer-lmtp"]
        self.file = str(folder / "lmtp")
        self.command = shlex.split(" ".join(said(folder, SERVICE, "ExecStart")))
        for name, text in PROJECT.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)

    def subjects(self) -> list[str]:
        found = stored(self.folder / "run/queue")
        return sorted(data.decode().splitlines()[0] for _, data in found)


@pytest.fixture
def project(installed: Path) -> Project:
    return Project(installed)


def send(client: smtplib.SMTP, subject: str) -> None:
    with client:
        client.sendmail("ann@s.example", ["post@d.example"], f"Subject: {subject}\r\n\r\nHello\r\n")


@pytest.mark.lifecycle
def test_the_first_connection_starts_the_front_end_and_is_served_by_it(project: Project) -> None:
    if shutil.which("systemd-socket-activate") is None:
        pytest.skip("systemd-socket-activate is missing: apt-get install systemd")
    with _started_by_systemd(project) as port:
        send(smtplib.SMTP("127.0.0.1", port, timeout=SECONDS), "by SMTP")
        send(smtplib.LMTP(project.file, timeout=SECONDS), "by LMTP")
    assert project.subjects() == ["Subject: by LMTP", "Subject: by SMTP"]


@contextmanager
def _started_by_systemd(project: Project) -> Iterator[int]:
    """It listens there itself, and becomes the service when somebody comes."""
    port = free_port()
    environ = environment(project.folder)
    passed_on = [f"--setenv={name}" for name in ("PYTHONPATH", "MAILDEFER_RUNTIME_DIR")]
    with open(project.folder / "log", "ab") as log:
        process = subprocess.Popen(
            [
                "systemd-socket-activate",
                f"--listen=127.0.0.1:{port}",
                f"--listen={project.file}",
                f"--fdname={project.names}",
                *passed_on,
                *project.command,
            ],
            cwd=project.folder,
            env=environ,
            stderr=log,
        )
    try:
        wait_until(lambda: b"Listening on " + project.file.encode() in (project.folder / "log").read_bytes())
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.mark.lifecycle
def test_who_comes_while_the_service_starts_anew_waits_and_is_served(project: Project) -> None:
    with ExitStack() as stack:
        mx = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        lmtp = stack.enter_context(socket.socket(socket.AF_UNIX))
        lmtp.bind(project.file)
        lmtp.listen()

        def started() -> None:
            with service([mx, lmtp], project.names, *project.command, folder=project.folder):
                port = mx.getsockname()[1]
                send(smtplib.SMTP("127.0.0.1", port, timeout=SECONDS), "to the service")
                send(smtplib.LMTP(project.file, timeout=SECONDS), "to the service")

        started()
        early = stack.enter_context(socket.create_connection(mx.getsockname(), timeout=SECONDS))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        local.settimeout(SECONDS)
        local.connect(project.file)  # its file has not gone with the service
        started()
        assert early.recv(512).startswith(b"220 ")
        assert local.recv(512).startswith(b"220 ")
    assert project.subjects() == ["Subject: to the service"] * 4


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.slow
def test_the_manifests_have_what_the_schema_of_kubernetes_has_and_nothing_else(
    version: str, tmp_path: Path
) -> None:
    validate = [str(Path(sys.executable).with_name("kubernetes-validate")), "--strict", "-k", version]
    manifests = [str(path) for path in DEPLOY.glob("kubernetes/*.yaml")]
    done = subprocess.run([*validate, *manifests], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall("passed for resource", done.stdout + done.stderr)) == 4
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((DEPLOY / "kubernetes/pool.yaml").read_text().replace("replicas:", "replcas:"))
    assert subprocess.run([*validate, str(wrong)], capture_output=True, timeout=60).returncode != 0


def test_the_manifests_probes_are_commands_that_there_are() -> None:
    from maildefer.cli.commands.probe import app

    text = "".join(file.read_text() for file in DEPLOY.glob("kubernetes/*.yaml"))
    assert "command: [maildefer, probe, --live]" in text
    assert "command: [maildefer, probe, --ready]" in text
    assert "command: [maildefer, status]" not in text, "it looks at mounts"
    assert [command.callback.__name__ for command in app.registered_commands] == ["probe"]
