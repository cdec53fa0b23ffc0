"""An Exim of a test's own, on loopback: a next server for mail that is sent, which keeps all that it takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from benchmarks import processes
from benchmarks.ports import free_port
from tests.support import certificates
from tests.support.certificates import CI
from tests.support.front_end import ROOT, SECONDS, wait_until
from tests.support.next_server import RealServer, greets
from tests.support.other_users import ACCOUNTS_LOCK

# Unpacked by .ci/setup: Debian has one mail server on a machine.
_PROGRAM = ROOT / ".cache/exim/usr/sbin/exim4"
_NOBODY = 65534
# Debian's Exim looks up a user of its package, at each start of itself; nobody is to have that name, for this one. Not
# the files are mounted: whoever adds a user puts another file in the place of one, and ends its mount everywhere.
_START = """\
mount --bind "$1/etc" /etc
exec "$1/exim4" -C "$1/exim.conf" -bdf
"""
_CONFIGURATION = """\
exim_path = {home}/exim4
exim_user = {nobody}
exim_group = {nobody}
primary_hostname = exim.test
spool_directory = {home}/spool
log_file_path = {home}/spool/log-%s
local_interfaces = 127.0.0.1
smtp_receive_timeout = {patience}s
daemon_smtp_ports = {port}
deliver_drop_privilege
never_users =
keep_environment =
host_lookup =
dsn_advertise_hosts = ${{if exists{{{home}/spool/silent}}{{}}{{*}}}}
tls_advertise_hosts = {tls_hosts}
tls_certificate = {certificate}
acl_smtp_rcpt = at_rcpt
acl_smtp_data = at_data
begin acl
at_rcpt:
{at_rcpt}
  accept
at_data:
{at_data}
  accept
begin routers
all:
  driver = accept
  transport = kept
begin transports
kept:
  driver = appendfile
  maildir_format
  directory = {home}/spool/mail
  create_directory
  envelope_to_add
  return_path_add
"""
GREYLISTING = """\
  defer message = greylisted, please try again
        local_parts = ^grey
        condition = ${run{/bin/mkdir {home}/spool/grey-$local_part}{yes}{no}}
"""
"""For `at_rcpt`: who begins with `grey` is refused at the first attempt."""
UNKNOWN = """\
  deny message = no such user
       local_parts = ^unknown
"""


@contextmanager
def home() -> Iterator[Path]:
    """A folder where nobody gets at what is nobody's. Skips the test without Exim, or without root."""
    if not _PROGRAM.exists():
        (pytest.fail if CI else pytest.skip)(
            "exim4-daemon-light is not unpacked in .cache/exim: .ci/setup test"
        )
    if os.geteuid() != 0:
        (pytest.fail if CI else pytest.skip)("an Exim of our own needs root")
    with tempfile.TemporaryDirectory(prefix="exim-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        (path / "spool").mkdir()
        os.chown(path / "spool", _NOBODY, _NOBODY)
        shutil.copy(_PROGRAM, path / "exim4")  # it starts itself again as nobody
        (path / "exim4").chmod(0o755)
        with FileLock(ACCOUNTS_LOCK):  # no file is to come or go meanwhile
            shutil.copytree("/etc", path / "etc", symlinks=True, ignore=shutil.ignore_patterns("*shadow*"))
        for name, fields in (("passwd", "65534:65534::/:/usr/sbin/nologin"), ("group", "65534:")):
            with open(path / "etc" / name, "a") as file:
                file.write(f"Debian-exim:x:{fields}\n")
        yield path


@contextmanager
def running(
    folder: Path,
    *,
    at_rcpt: str = "",
    at_data: str = "",
    certificate: Path | None = None,
    patience_seconds: int = 300,
) -> Iterator[RealServer]:
    """In a folder from `home`; with ACL statements, in which `{home}` is the folder, and STARTTLS by a certificate.

    It offers DSN, unless there is a file `silent` in its spool, and waits so long for what a client sends.
    """
    port = free_port()
    if certificate is not None:
        os.chown(certificate, _NOBODY, _NOBODY)
    (folder / "exim.conf").write_text(
        _CONFIGURATION.format(
            home=folder,
            nobody=_NOBODY,
            port=port,
            tls_hosts="*" if certificate else "",
            certificate=certificate or "",
            patience=patience_seconds,
            at_rcpt=at_rcpt.replace("{home}", str(folder)),
            at_data=at_data.replace("{home}", str(folder)),
        )
    )
    command = ["unshare", "--mount", "sh", "-euc", _START, "sh", str(folder)]
    with open(folder / "out", "ab") as out:
        master = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    wait_until(lambda: greets(port) or master.poll() is not None)
    try:
        assert master.poll() is None, (folder / "out").read_text()
        yield RealServer(port=port, maildir=folder / "spool/mail", field=b"Envelope-to")
    finally:
        members = processes.tree(master.pid)[1:]
        master.terminate()
        master.wait(SECONDS)
        processes.kill(members)


@contextmanager
def delaying(folder: Path, at_rcpt: str) -> Iterator[RealServer]:
    """One that greylists, knows not everybody, and has a certificate of another name, which is made in the folder."""
    with home() as place:
        certificate = place / "certificate.pem"
        shutil.copy(certificates.make(folder, "other.example"), certificate)
        with running(place, at_rcpt=GREYLISTING + UNKNOWN + at_rcpt, certificate=certificate) as server:
            yield server
