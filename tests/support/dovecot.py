"""A Dovecot of a test's own, which takes mail by LMTP on a socket file."""

from __future__ import annotations

import os
import pwd
import smtplib
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import processes
from tests.support.certificates import CI, need
from tests.support.front_end import SECONDS, wait_until

MESSAGE = b"From: Ann <ann@s.example>\nTo: post@d.example\nSubject: hello\n\nIt works.\n"
_LMTP = "/usr/lib/dovecot/lmtp"
_CONFIGURATION = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/log
protocols = lmtp
ssl = no
mail_driver = maildir
mail_uid = nobody
mail_gid = {gid}
first_valid_uid = 1
passdb static {{
  fields {{
    nopassword = yes
  }}
}}
service lmtp {{
  unix_listener {home}/lmtp {{
    mode = 0666
  }}
}}
"""
USERS = "userdb static {\n  allow_all_users = yes\n  fields {\n    home = %s\n  }\n}\n"
"""Everybody is one of them, with one home."""
KNOWN_USERS = """
mail_path = {home}/kept/%{user}
userdb passwd-file {
  passwd_file_path = {home}/users
}
"""
"""Those in the file `users`, each with a Maildir below `kept`."""


class Dovecot:
    """A running instance."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.socket = str(home / "lmtp")

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.socket) == 0

    def log(self) -> str:
        path = self.home / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def doveadm(self, *words: str) -> str:
        command = [need("doveadm", "dovecot-core"), "-c", str(self.home / "dovecot.conf"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True).stdout

    def complaints(self) -> list[str]:
        return [line for line in self.log().splitlines() if any(f" {word}: " in line for word in _BAD)]

    def send(self, *recipients: str, sender: str = "ann@s.example") -> None:
        """One message for all of them. A recipient that is refused raises."""
        with smtplib.LMTP(self.socket, timeout=SECONDS) as client:
            client.ehlo()
            client.mail(sender)
            for recipient in recipients:
                code, text = client.rcpt(recipient)
                assert code == 250, text
            replies = [client.data(MESSAGE.replace(b"\n", b"\r\n"))]
            replies += [client.getreply() for _ in recipients[1:]]
            assert [code for code, _ in replies] == [250] * len(recipients), replies


_BAD = ("Warning", "Error", "Fatal", "Panic")


@contextmanager
def home() -> Iterator[Path]:
    """A folder where nobody gets at what is nobody's. Skips the test without Dovecot 2.4, or without root."""
    program = need("dovecot", "dovecot-core dovecot-lmtpd")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if version < "2.4":
        pytest.skip(f"this is Dovecot {version.split()[0]}: settings are those of 2.4")
    if not os.path.exists(_LMTP):
        (pytest.fail if CI else pytest.skip)(f"{_LMTP} is missing: apt-get install dovecot-lmtpd")
    if os.geteuid() != 0:
        (pytest.fail if CI else pytest.skip)("a Dovecot of our own needs root")
    with tempfile.TemporaryDirectory(prefix="dovecot-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def running(folder: Path, settings: str) -> Iterator[Dovecot]:
    """In a folder from `home`; settings as lines of its configuration, where `{home}` is the folder."""
    for name in ("run", "state"):
        (folder / name).mkdir()
    gid = pwd.getpwnam("nobody").pw_gid
    said = _CONFIGURATION.format(home=folder, gid=gid) + settings.replace("{home}", str(folder))
    (folder / "dovecot.conf").write_text(said)
    with open(folder / "out", "ab") as out:
        master = subprocess.Popen(
            [need("dovecot"), "-F", "-c", str(folder / "dovecot.conf")], stdout=out, stderr=out
        )
    it = Dovecot(folder)
    try:
        wait_until(lambda: it.listens() or master.poll() is not None)
        assert master.poll() is None, (folder / "out").read_text() + it.log()
        yield it
    finally:
        members = processes.tree(master.pid)[1:]
        master.terminate()
        master.wait(SECONDS)
        processes.kill(members)
