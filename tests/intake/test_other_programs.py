"""Other programs' ways into a queue, and handlers' ways out of it: real Postfix, getmail, fetchmail; LMTP."""

from __future__ import annotations

import mailbox as maildirs
import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from maildefer.mail import MailRequest
from maildefer.maildir.layout import Layout, create_queue
from maildefer.message.envelope import Envelope
from maildefer.message.request import received
from maildefer.server import Relay
from tests.support import postfix
from tests.support.certificates import need
from tests.support.front_end import ROOT, SECONDS, front_end, stored, wait_until
from tests.support.other_users import shared
from tests.support.pop3 import mailbox

pytestmark = pytest.mark.lifecycle
MESSAGE = b"From: Ann <ann@s.example>\nTo: post@d.example\nSubject: hello\n\nIt works.\n"


def entries(queue: Layout) -> list[tuple[Envelope | None, bytes]]:
    """As a worker reads them."""
    return stored(Path(queue.path))


def fetched(queue: Layout) -> MailRequest:
    """The one entry, as its handler gets it."""
    ((name, data),) = ((name, Path(queue.new, name).read_bytes()) for name in os.listdir(queue.new))
    return received(data, name, 1, queue.path, "peer")


# Postfix


@pytest.fixture
def home() -> Iterator[Path]:
    with postfix.home() as folder:
        yield folder


def send(relay: postfix.Relay, *recipients: str, sender: str = "ann@s.example") -> None:
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=SECONDS) as client:
        client.sendmail(sender, recipients, MESSAGE)


def test_postfixs_virtual_delivery_writes_into_the_queue(home: Path) -> None:
    queue, nobody = shared(home), pwd.getpwnam("nobody")
    settings = (
        "virtual_mailbox_domains = d.example",
        f"virtual_mailbox_base = {home}",
        "virtual_mailbox_maps = static:queue/",
        f"virtual_uid_maps = static:{nobody.pw_uid}",
        f"virtual_gid_maps = static:{nobody.pw_gid}",
        "virtual_transport = virtual",
    )
    service = "virtual unix - n n - - virtual"
    with postfix.relaying(home, "error:no other way", *settings, service=service) as relay:
        send(relay, "post@d.example", "other@d.example")
        send(relay, "post@d.example", sender="")
        wait_until(
            lambda: len(os.listdir(queue.new)) == 3 or "status=" in relay.log().replace("status=sent", "")
        )
    found = {envelope for envelope, _ in entries(queue)}
    assert found == {
        Envelope("ann@s.example", "post@d.example"),
        Envelope("ann@s.example", "other@d.example"),
        Envelope("", "post@d.example"),
    }
    assert all(b"\nSubject: hello\n" in data for _, data in entries(queue))


# getmail and fetchmail


def test_getmail_writes_into_the_queue(tmp_path: Path) -> None:
    need("getmail", "getmail6")
    with tempfile.TemporaryDirectory(prefix="getmail-") as folder:
        os.chmod(folder, 0o755)  # as root it delivers as somebody else
        _fetch_by_getmail(
            shared(Path(folder)) if os.geteuid() == 0 else create_queue(f"{folder}/queue"), tmp_path
        )


def _fetch_by_getmail(queue: Layout, tmp_path: Path) -> None:
    user = "user = nobody\n" if os.geteuid() == 0 else ""
    traces = [
        b"Return-Path: <ann@s.example>\nDelivered-To: post@d.example\n",
        b"Return-Path: <>\nDelivered-To: other@d.example\n",
    ]
    (tmp_path / "getmail").mkdir(mode=0o700)
    with mailbox(*(trace + MESSAGE for trace in traces)) as fetched_from:
        (tmp_path / "getmail" / "rc").write_text(
            "[retriever]\ntype = MultidropPOP3Retriever\nenvelope_recipient = delivered-to:1\n"
            "server = 127.0.0.1\nusername = u\npassword = p\n"
            f"port = {fetched_from.port}\n"
            f"[destination]\ntype = Maildir\npath = {queue.path}/\n{user}"
            "[options]\ndelete = true\nverbose = 0\n"
        )
        subprocess.run(
            ["getmail", "--getmaildir", str(tmp_path / "getmail"), "--rcfile", "rc"],
            check=True,
            timeout=3 * SECONDS,
        )
        wait_until(lambda: fetched_from.messages == [])  # some clients say QUIT and are gone
    assert {envelope for envelope, _ in entries(queue)} == {
        Envelope("ann@s.example", "post@d.example"),
        Envelope("", "other@d.example"),
    }


@pytest.mark.parametrize("way", ["smtp", "mda"])
def test_fetchmail_delivers_into_the_queue(tmp_path: Path, way: str) -> None:
    need("fetchmail", "fetchmail")
    with front_end(tmp_path) as front, mailbox(MESSAGE) as fetched_from:
        how = {
            "smtp": f"smtphost 127.0.0.1/{front.port} smtpname post@d.example",
            "mda": f'mda "{sys.executable} -m maildefer push {front.queue} -f %F -r post@d.example"',
        }[way]
        rc = tmp_path / "fetchmailrc"
        rc.write_text(
            f"poll 127.0.0.1 protocol POP3 service {fetched_from.port}\n"
            f"  user u password p sslproto '' no rewrite no keep dropdelivered {how}\n"
        )
        rc.chmod(0o600)
        environ = {
            **os.environ,
            "HOME": str(tmp_path),
            "FETCHMAILHOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        }
        done = subprocess.run(
            ["fetchmail", "-f", str(rc), "--pidfile", str(tmp_path / "pid")],
            capture_output=True,
            env=environ,
            timeout=3 * SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: fetched_from.messages == [])  # some clients say QUIT and are gone
        ((envelope, data),) = front.entries()
    assert envelope == Envelope("ann@s.example", "post@d.example")
    assert data.endswith(b"\n\nIt works.\n")


# Out again


def test_a_handler_delivers_by_lmtp_on_a_socket_file(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with front_end(tmp_path, kind="lmtp", listener=listener) as front:
            relay = Relay(path, lmtp=True)
            relay.deliver(MailRequest("p", "ann@s.example", "post@d.example", MESSAGE))
            assert front.entries() == [(Envelope("ann@s.example", "post@d.example"), MESSAGE)]


def test_another_programs_maildir_is_a_queue_as_it_is(tmp_path: Path) -> None:
    box = maildirs.Maildir(tmp_path / "box")
    box.add(MESSAGE)
    queue = create_queue(str(tmp_path / "box"))
    assert fetched(queue).To == "post@d.example"
    shutil.rmtree(tmp_path / "box")
