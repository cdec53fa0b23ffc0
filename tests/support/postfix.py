"""A Postfix of a test's own, on loopback: it passes on all that it is given to where it is told to, or keeps it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.ports import free_port
from benchmarks.postfix import running
from tests.support.certificates import CI, need
from tests.support.next_server import RealServer

_SETTINGS = """\
myhostname = relay.test
mydestination =
disable_dns_lookups = yes
smtputf8_autodetect_classes = all
default_transport = {transport}
bounce_queue_lifetime = 1h
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
"""
_SERVICES = """\
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
scache unix - - n - 1 scache
"""


class Relay:
    """A running instance."""

    def __init__(self, port: int, home: Path) -> None:
        self.port = port
        self.home = home

    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def home() -> Iterator[Path]:
    """A folder where Postfix's own user gets at sockets too. Skips the test without Postfix, or without root."""
    need("postconf", "postfix")
    if os.geteuid() != 0:
        (pytest.fail if CI else pytest.skip)("a Postfix of our own needs root")
    with tempfile.TemporaryDirectory(prefix="postfix-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def relaying(folder: Path, transport: str, *settings: str, service: str = "") -> Iterator[Relay]:
    """In a folder from `home`; to a transport such as `lmtp:unix:/path`; settings as lines of main.cf, and a service
    as one of master.cf."""
    port = free_port()
    lines = _SETTINGS.format(transport=transport) + "".join(f"{line}\n" for line in settings)
    with running(folder, folder / "spool", port, lines, f"{_SERVICES}{service}\n"):
        yield Relay(port, folder)


_KEEPING = """\
virtual_transport = virtual
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:mail/
virtual_mailbox_base = {home}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
smtpd_delay_reject = no
smtpd_recipient_restrictions = check_recipient_access regexp:{home}/at_rcpt, permit
smtpd_end_of_data_restrictions = check_recipient_access regexp:{home}/at_end
"""


@contextmanager
def taking(folder: Path, *settings: str, at_rcpt: str = "", at_end: str = "") -> Iterator[RealServer]:
    """In a folder from `home`; with lines of access(5) for a recipient, at its RCPT and at the end of the data."""
    (folder / "mail").mkdir()
    os.chown(folder / "mail", 65534, 65534)
    (folder / "at_rcpt").write_text(at_rcpt)
    (folder / "at_end").write_text(at_end)
    with relaying(folder, "error:nowhere", *_KEEPING.format(home=folder).splitlines(), *settings) as relay:
        yield RealServer(port=relay.port, maildir=folder / "mail", field=b"Delivered-To")


@contextmanager
def broken_tls(at_rcpt: str, at_end: str) -> Iterator[RealServer]:
    """One whose certificate is none, so that STARTTLS, which it offers, fails."""
    with home() as place:
        (place / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnone\n")
        tls = ("smtpd_tls_security_level = may", f"smtpd_tls_chain_files = {place}/broken.pem")
        with taking(place, *tls, at_rcpt=at_rcpt, at_end=at_end) as server:
            yield server
