"""Where a front end listens: addresses, socket files, and sockets that systemd has bound."""

from __future__ import annotations

import os
import signal
import smtplib
import socket
import ssl
import sys
from pathlib import Path

import pytest

from maildefer.errors import ConfigurationError
from maildefer.intake import settings
from maildefer.intake.options import SocketProtocol
from maildefer.pool.frontend import listeners as sockets
from maildefer.server import LMTPReceiver, SMTPReceiver
from tests.support import certificates
from tests.support.front_end import SECONDS, wait_until
from tests.support.socket_activation import activated


def close(listeners: list[sockets.SmtpListener]) -> None:
    for listener in listeners:
        listener.socket.close()


def test_addresses_name_kind_and_place(tmp_path: Path) -> None:
    listeners = sockets.listen(
        ["smtp://127.0.0.1:0", "smtps://[::1]:0", "lmtp:door", "lmtp://127.0.0.1:0"],
        folder=str(tmp_path),
        mode=0o600,
    )
    try:
        assert [listener.kind for listener in listeners] == [
            SocketProtocol.SMTP,
            SocketProtocol.SMTPS,
            SocketProtocol.LMTP,
            SocketProtocol.LMTP,
        ]
        assert str(listeners[1]) == f"smtps://[::1]:{listeners[1].socket.getsockname()[1]}"
        assert str(listeners[2]) == f"lmtp:{tmp_path}/door"
        assert os.stat(tmp_path / "door").st_mode & 0o777 == 0o600
        assert listeners[1].socket.family == socket.AF_INET6
    finally:
        close(listeners)


def test_the_folder_of_a_socket_file_is_made_and_none_above_it(tmp_path: Path) -> None:
    close(sockets.listen(["lmtp:run/lmtp", "smtp:run/smtp"], folder=str(tmp_path)))
    assert sorted(os.listdir(tmp_path / "run")) == ["lmtp", "smtp"]
    with pytest.raises(ConfigurationError, match="No such file"):
        sockets.listen(["lmtp:rum/there/lmtp"], folder=str(tmp_path))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:25",
        "pop3://127.0.0.1:110",
        "smtp:",
        "smtp://127.0.0.1",
        "smtp://127.0.0.1:x",
        "smtp://192.0.2.1:0",
    ],
)
def test_an_address_that_cannot_be_used_is_named_and_nothing_stays_open(address: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigurationError, match="can't listen on"):
        sockets.listen(["smtp://127.0.0.1:0", address])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_socket_file_without_a_folder_is_not_somebody_elses(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="make its folder, or choose another path"):
        sockets.bound_file(str(tmp_path / "sub" / "below" / "lmtp"))


def test_without_an_address_there_is_nothing_to_listen_on() -> None:
    with pytest.raises(ConfigurationError, match="no address"):
        sockets.listen([])


@pytest.mark.parametrize(
    ("said", "addresses"),
    [
        ({}, ["smtp://127.0.0.1:8825"]),
        ({"host": "::1", "port": 25}, ["smtp://[::1]:25"]),
        ({"lmtp": True, "port": 24}, ["lmtp://127.0.0.1:24"]),
        ({"socket": "run/lmtp", "lmtp": True, "port": 24}, ["lmtp:run/lmtp"]),
        ({"listen": "smtp:systemd", "port": 24}, ["smtp:systemd"]),
        ({"listen": ("smtp:systemd:mx", "lmtp:run/lmtp")}, ["smtp:systemd:mx", "lmtp:run/lmtp"]),
    ],
)
def test_settings_say_where(said: dict[str, object], addresses: list[str]) -> None:
    assert settings.addresses(said) == addresses


def test_settings_become_options() -> None:
    said = {
        "max_errors": 3,
        "tls_required": True,
        "auth_required": False,
        "proxy_networks": ["::1", "10.0.0.0/8"],
    }
    assert settings.arguments(said | {"port": 25}) == [
        "--max-errors=3",
        "--proxy-networks=::1 10.0.0.0/8",
        "--tls-required",
    ]


def test_a_misspelt_setting_is_refused() -> None:
    settings.check_receiver_config(["host", "port", "queue", "processes", "max_bytes", "listen"])
    with pytest.raises(ConfigurationError, match="max_byte means nothing"):
        settings.check_receiver_config(["host", "max_byte"])
    with pytest.raises(ConfigurationError, match="octal"):
        settings.socket_mode({"socket_mode": "rw"})
    assert settings.socket_mode({"socket_mode": "0660"}) == 0o660


TAKE = """
from maildefer.pool.frontend import listeners as sockets
held = []
for address in ("smtp:systemd:mx", "lmtp:systemd:local", "smtp:systemd"):
    held += sockets.listen([address])
    print(*(each.socket.getsockname()[1] for each in held), flush=True)
try:
    sockets.listen(["smtp:systemd:other"])
except Exception as fault:
    print(fault, flush=True)
"""


def test_sockets_are_taken_from_systemd_by_name(tmp_path: Path) -> None:
    with activated("mx:local", sys.executable, "-c", TAKE, folder=tmp_path) as (process, (mx, local)):
        assert process.stdout is not None
        said = process.stdout.read().decode().splitlines()
    assert said[:3] == [f"{mx}", f"{mx} {local}", f"{mx} {local} {mx} {local}"]
    assert "'other'" in said[3]


def test_sockets_that_are_meant_for_another_process_are_not_taken() -> None:
    for environment in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}):
        with pytest.raises(ConfigurationError, match="no socket was passed"):
            sockets.listen(["smtp:systemd"], environment=environment)


def test_who_lets_go_of_a_socket_lets_go_for_all_that_have_inherited_it() -> None:
    (listener,) = sockets.listen(["smtp://127.0.0.1:0"])
    address = listener.socket.getsockname()
    with listener.socket.dup():
        sockets.stop_listening(listener.socket)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=SECONDS)


# In a boot module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def greets(port: int) -> bool:
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS):
            return True
    except OSError:
        return False


@pytest.mark.lifecycle
def test_one_receiver_may_have_many_doors(project: Path) -> None:
    certificate = certificates.make(project)
    listen = ["smtp://127.0.0.1:0", "smtps://127.0.0.1:0", "lmtp:door"]
    receiver = SMTPReceiver(listen=listen, tls_certificate=str(certificate), hostname="mx.test", max_errors=5)
    try:
        receiver.start()
        ports = [each.socket.getsockname()[1] for each in receiver._listeners[:2]]
        assert receiver.port == ports[0]
        context = ssl.create_default_context(cafile=str(certificate))
        with smtplib.SMTP("127.0.0.1", ports[0], timeout=SECONDS) as client:
            client.sendmail("a@b", "c@d", b"one\r\n")
        with smtplib.SMTP_SSL("127.0.0.1", ports[1], context=context, timeout=SECONDS) as client:
            client.sendmail("a@b", "c@d", b"two\r\n")
        with smtplib.LMTP(str(project / "door"), timeout=SECONDS) as client:
            client.sendmail("a@b", "c@d", b"three\r\n")
    finally:
        receiver.close()
    found = sorted(path.read_text() for path in (project / "run/queue/new").iterdir())
    assert [text.split("with ")[1].split()[0] for text in found] == ["ESMTP", "ESMTPS", "LMTP"]


@pytest.mark.lifecycle
def test_an_lmtp_receiver_on_tcp_speaks_lmtp(project: Path) -> None:
    receiver = LMTPReceiver("127.0.0.1", 0)
    try:
        receiver.start()
        with smtplib.LMTP("127.0.0.1", receiver.port, timeout=SECONDS) as client:
            assert client.ehlo()[0] == 250
    finally:
        receiver.close()


BOOT = """
from maildefer.utils import settings
from maildefer.server import SMTPReceiver
settings.receiver = SMTPReceiver({arguments})
"""


def write_project(folder: Path, arguments: str) -> None:
    (folder / "conf").mkdir()
    (folder / "conf/__init__.py").touch()
    (folder / "workers").mkdir()
    (folder / "workers/__init__.py").touch()
    (folder / "conf/settings.py").write_text("queues = {'run/queue': ['workers.front']}\n")
    (folder / "conf/boot.py").write_text(BOOT.format(arguments=arguments))
    write_handler(folder, "post")


def write_handler(folder: Path, name: str) -> None:
    (folder / "workers/front.py").write_text(
        "from maildefer.routing import route, stateless\n"
        f"@route('{name}@blog.test')\n@stateless\ndef START(message):\n    pass\n"
    )


def takes(port: int, recipient: str) -> bool:
    with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS) as client:
        client.ehlo()
        client.mail("a@b")
        return client.rcpt(recipient)[0] == 250


@pytest.mark.lifecycle
def test_maildefer_start_serves_a_socket_of_systemds_and_heeds_hup(tmp_path: Path) -> None:
    write_project(tmp_path, "listen='smtp:systemd:mx'")
    command = (sys.executable, "-m", "maildefer", "start", "--no-daemon")
    log = tmp_path / "log"
    with activated("mx", *command, folder=tmp_path) as (process, (port,)):
        assert takes(port, "post@blog.test")
        assert not takes(port, "new@blog.test")
        write_handler(tmp_path, "new")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: takes(port, "new@blog.test"))
        (tmp_path / "workers/front.py").write_text("this is no python\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: b"application.broken" in log.read_bytes())
        assert takes(port, "new@blog.test")
        assert process.poll() is None


@pytest.mark.lifecycle
def test_a_pools_front_end_serves_sockets_of_systemds(tmp_path: Path) -> None:
    write_project(tmp_path, "")
    with open(tmp_path / "conf/settings.py", "a") as file:
        file.write("receiver_config = {'listen': ['smtp:systemd:mx', 'lmtp:systemd:local', 'lmtp:door']}\n")
    command = (sys.executable, "-m", "maildefer", "supervise", "--intake", "--workers", "1", "--force")
    with activated("mx:local", *command, folder=tmp_path) as (_, ports):
        assert takes(ports[0], "post@blog.test")
        for client in (smtplib.LMTP("127.0.0.1", ports[1]), smtplib.LMTP(str(tmp_path / "door"))):
            with client:
                assert client.ehlo()[0] == 250
                client.mail("a@b")
                assert client.rcpt("post@blog.test")[0] == 250
    assert not greets(ports[0])
