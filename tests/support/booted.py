"""Systemd itself, as the first process of namespaces of its own: with its users, its units, its network.

Its /etc is a copy without units, /run, /srv, /tmp are empty, /proc/sys can't be written, and its control groups lie
below one that goes with it: what is done in there is undone with its end, and nothing of this machine's changes.
Nothing is logged to the journal, which does not run: what a service prints is in /srv/NAME.log.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.front_end import ROOT, wait_until

SYSTEMD = "/lib/systemd/systemd"
PROJECT = "/srv/blog"

# What a service asks for by default, and what the units of maildefer name, of which there is nothing to start here.
_TARGETS = "sysinit basic sockets shutdown network-online remote-fs multi-user default".split()

_INTO_ITS_OWN_CONTROL_GROUP = """
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$GROUP"
echo 0 > "/sys/fs/cgroup/$GROUP/cgroup.procs"
exec unshare --cgroup sh -euc "$PLACES"
"""
_PLACES = """
umount /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t tmpfs -o mode=755 none /run
mount -t tmpfs -o mode=755 none /srv
mkdir /srv/python /srv/packages /srv/source
mount --bind "$PYTHON" /srv/python
mount --bind "$PACKAGES" /srv/packages
mount --bind "$SOURCE" /srv/source
for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 none "$place"; done
[ ! -e /dev/console ] || mount --bind /dev/null /dev/console
mkdir /run/etc
cp -a /etc/. /run/etc || :  # drafts and locks of a useradd outside come and go
rm -f /run/etc/*.lock
rm -rf /run/etc/systemd/system /run/etc/sysusers.d /run/etc/tmpfiles.d
mkdir -p /run/etc/systemd/system /run/etc/sysusers.d /run/etc/tmpfiles.d /run/units /run/generators
mount --bind /run/etc /etc
for name in $TARGETS; do printf '[Unit]\\nDescription=%s\\n' "$name" > "/run/units/$name.target"; done
mkdir /run/units/service.d
printf '[Service]\\nStandardOutput=append:/srv/%%N.log\\nStandardError=inherit\\n' > /run/units/service.d/log.conf
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/units SYSTEMD_GENERATOR_PATH=/run/generators \\
    "$SYSTEMD" --system --unit=default.target --log-target=null --show-status=0
"""


class Machine:
    """A systemd that runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, command: str, *, stdin: str = "", seconds: float = 120) -> str:
        """What a shell prints there, as root in the project's folder; it must succeed."""
        done = self.attempt(command, stdin=stdin, seconds=seconds)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def attempt(
        self, command: str, *, stdin: str = "", seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        confined_to = f"cd {PROJECT} 2>/dev/null || cd /; {command}"
        return subprocess.run(
            [
                *f"nsenter --target {self.pid} --mount --pid --net --ipc --uts --cgroup".split(),
                *"env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 sh -euc".split(),
                confined_to,
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def logs(self) -> str:
        return self.attempt("tail -n 60 /srv/*.log || true; systemctl --no-pager --failed || true").stdout

    def install(self) -> None:
        """An environment at /srv/blog/.venv that has maildefer from here, and what it needs."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.run(
            f"""
            /srv/python/bin/{version} -m venv --without-pip {PROJECT}/.venv
            printf '/srv/source\\n/srv/packages\\n' > {PROJECT}/.venv/lib/{version}/site-packages/borrowed.pth
            cat > {PROJECT}/.venv/bin/maildefer
            chmod 755 {PROJECT}/.venv/bin/maildefer
            """,
            stdin=f"#!{PROJECT}/.venv/bin/python\nimport sys\nfrom maildefer.cli import main\nsys.exit(main())\n",
        )

    def python(self, code: str, *, seconds: float = 120) -> str:
        return self.run(f"{PROJECT}/.venv/bin/python -", stdin=code, seconds=seconds)


@contextmanager
def booted() -> Iterator[Machine]:
    """Skips the test where this can't be: not root, no systemd, or a container that may not mount."""
    if os.geteuid() != 0:
        pytest.skip("only root boots a systemd")
    if not Path(SYSTEMD).exists():
        pytest.skip("systemd is missing: apt-get install systemd")
    unshare = "unshare --mount --pid --fork --kill-child --mount-proc --uts --ipc --net".split()
    possible = [*unshare, *"mount -t cgroup2 none /sys/fs/cgroup".split()]
    if subprocess.run(possible, capture_output=True).returncode != 0:
        pytest.skip("this container may make no namespaces, or mount no control groups in them")
    group = f"maildefer-test-{secrets.token_hex(4)}"
    environ = {
        **os.environ,
        "GROUP": group,
        "PLACES": _PLACES,
        "PYTHON": sys.base_prefix,
        "PACKAGES": sysconfig.get_paths()["purelib"],
        "SOURCE": str(ROOT),
        "SYSTEMD": SYSTEMD,
        "TARGETS": " ".join(_TARGETS),
    }
    outer = subprocess.Popen(
        [*unshare, "sh", "-euc", _INTO_ITS_OWN_CONTROL_GROUP],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        machine = Machine(_first_process(outer))
        wait_until(lambda: _is_up(outer, machine))
        yield machine
    finally:
        outer.send_signal(signal.SIGKILL)  # and the first process with it, and with that all others
        outer.communicate()
        _remove_control_groups(group)


def _first_process(outer: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    wait_until(lambda: outer.poll() is not None or bool(children.read_text().split()))
    return int(children.read_text().split()[0])


def _is_up(outer: subprocess.Popen[bytes], machine: Machine) -> bool:
    if outer.poll() is not None:
        assert outer.stdout is not None
        raise AssertionError(f"systemd has not come up: {outer.stdout.read().decode()}")
    state = machine.attempt("systemctl is-system-running").stdout.strip()
    return state in ("running", "degraded")


def _remove_control_groups(name: str) -> None:
    script = f"""
    mount --make-rprivate /
    mount -t cgroup2 none /sys/fs/cgroup
    cd /sys/fs/cgroup
    find {name} -depth -type d -exec rmdir {{}} ';'
    [ ! -e {name} ]
    """
    wait_until(
        lambda: (
            subprocess.run(["unshare", "--mount", "sh", "-euc", script], capture_output=True).returncode == 0
        )
    )
