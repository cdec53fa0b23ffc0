"""A private Postfix that does nothing but take mail and put it on hold: what durable acceptance costs there.

smtpd and cleanup run as they do anywhere; cleanup syncs the file (not its directory) before the 250, and renames it
into `hold/`, from where no queue manager takes it.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import processes
from benchmarks.places import Unavailable
from benchmarks.ports import free_port

DAEMONS = Path("/usr/lib/postfix/sbin")
_PATIENCE_SECONDS = 60.0
_OWNED = (  # by the mail owner, under queue_directory
    "active bounce corrupt defer deferred flush hold incoming private saved trace maildrop public".split()
)
_MAIN = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {home}/data
daemon_directory = {daemons}
maillog_file = {home}/log
maillog_file_prefixes = {home}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
smtpd_peername_lookup = no
in_flow_delay = 0
"""
_HOLDING = """\
myhostname = postfix.example.org
mydestination = example.org, osb.example.org
local_recipient_maps =
smtpd_client_restrictions = check_client_access static:HOLD
message_size_limit = 67108864
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Held:
    """A running instance: its port, its master's pid, and how many messages it holds."""

    def __init__(self, port: int, pid: int, hold: Path) -> None:
        self.port = port
        self.pid = pid
        self._hold = hold

    def count(self) -> int:
        return len(os.listdir(self._hold))


@contextmanager
def holding(base: str) -> Iterator[Held]:
    """Runs until the block ends, with its queue under `base`. Raises Unavailable without root or the package."""
    if os.geteuid() != 0 or not (DAEMONS / "master").exists():
        raise Unavailable("a Postfix of our own needs root and its package: apt-get install postfix")
    with tempfile.TemporaryDirectory(prefix="postfix-") as home:
        queue, port = Path(base, "spool"), free_port()
        with running(Path(home), queue, port, _HOLDING) as pid:
            yield Held(port, pid, queue / "hold")


@contextmanager
def running(home: Path, queue: Path, port: int, settings: str, services: str = "") -> Iterator[int]:
    """A Postfix that takes mail, with more lines of main.cf and master.cf; its master's pid.

    At last it is ended, and its queue removed.
    """
    main = _MAIN.format(queue=queue, home=home, daemons=DAEMONS)
    _lay_out(home, queue, main + settings, _MASTER.format(port=port) + services)
    with open(home / "out", "wb") as out:
        process = subprocess.Popen(
            [DAEMONS / "master", "-s", "-c", home], stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        _await_greeting(port, process, home)
        yield process.pid
    finally:
        _end(process)
        shutil.rmtree(queue)


def _lay_out(home: Path, queue: Path, main: str, master: str) -> None:
    owner, group = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
    home.chmod(0o755)
    queue.mkdir()
    queue.chmod(0o755)
    (home / "main.cf").write_text(main)
    (home / "master.cf").write_text(master)
    for path in (home / "data", *(queue / name for name in _OWNED)):
        path.mkdir(0o700)
        os.chown(path, owner, -1)
    (queue / "pid").mkdir(0o755)
    for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
        os.chown(queue / name, owner, group)
        (queue / name).chmod(mode)


def _await_greeting(port: int, master: subprocess.Popen[bytes], home: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and master.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
                if client.recv(512).startswith(b"220"):
                    return
        except OSError:
            time.sleep(0.02)
    texts = [path.read_text(errors="replace") for path in (home / "out", home / "log") if path.exists()]
    raise RuntimeError(f"Postfix does not greet; it says:\n{''.join(texts)[-3000:]}")


def _end(master: subprocess.Popen[bytes]) -> None:
    """Its daemons leave when their master does, in their own time: they are ended, so that none is in the next run."""
    members = processes.tree(master.pid)[1:]
    master.send_signal(signal.SIGTERM)
    master.wait(_PATIENCE_SECONDS)
    processes.kill(members)
