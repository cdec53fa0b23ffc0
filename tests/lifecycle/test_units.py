"""The systemd units, installed as docs/operating.md has it, below a systemd that runs: what they permit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.booted import ROOT, Machine, booted
from tests.support.front_end import wait_until

pytestmark = [pytest.mark.lifecycle, pytest.mark.slow]

PAGE = (ROOT / "docs/operating.md").read_text()
SECTION = PAGE.partition("\n### Under systemd\n")[2].partition("\n### ")[0]
USERS = {"maildefer-pool": "maildefer", "maildefer-intake": "mailfront"}
PROJECT = {
    "conf/__init__.py": "",
    "conf/settings.py": "queues = {'run/queue': ['workers.front']}\n",
    "conf/boot.py": """
from conf.attempts import write
from maildefer.server import SMTPReceiver
from maildefer.utils import settings
write("/run/maildefer-intake/attempts.json")
settings.receiver = SMTPReceiver(listen=["smtp:systemd:mx"])
""",
    "conf/attempts.py": '''
"""What a service may try. Each attempt by its name, and the error by which it has failed, or "done"."""
import ctypes, errno, json, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if libc[name](*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def set_user_id():
    with open("/tmp/program", "w") as file:
        os.fchmod(file.fileno(), 0o4755)

ATTEMPTS = {
    "look at a process of another user": lambda: open("/proc/1/stat").close(),
    "write outside of run/": lambda: open(f"/srv/open/{os.getuid()}", "a").close(),
    "read below /home": lambda: os.listdir("/home"),
    "find a device": lambda: os.stat("/dev/kmsg"),
    "make code at run time": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
    "make a namespace": lambda: call("unshare", 0x10000000),  # CLONE_NEWUSER
    "make a set-user-ID program": set_user_id,
    "choose its processors": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "lock memory": lambda: call("mlock", ctypes.create_string_buffer(64), 64),
    "change its personality": lambda: call("personality", 8),  # PER_LINUX32
    "ask the kernel for interfaces": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
}

def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return "EPERM" if error.errno == errno.EACCES else errno.errorcode[error.errno]
    return "done"

def write(path):
    outcomes = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
    with open(path + ".draft", "w") as file:
        json.dump(outcomes, file)
    os.rename(path + ".draft", path)
''',
    "workers/__init__.py": "",
    "workers/front.py": """
import os, signal, time
from conf.attempts import write
from maildefer.routing import route, stateless

@route("(name)@d.example", name=".+")
@stateless
def START(message, name):
    if name == "attempts":
        write("run/attempts.json")
    elif name == "killed" and message.attempt == 1:
        os.kill(os.getppid(), signal.SIGKILL)  # the supervisor
        time.sleep(100)
    else:
        os.makedirs("run/handled", exist_ok=True)
        open(f"run/handled/{name}", "x").close()
""",
}
REFUSED = {
    "look at a process of another user": "ENOENT",  # ProtectProc=
    "write outside of run/": "EROFS",  # ProtectSystem=, ReadWritePaths=
    "read below /home": "EPERM",  # ProtectHome=
    "find a device": "ENOENT",  # PrivateDevices=
    "make code at run time": "EPERM",  # MemoryDenyWriteExecute=
    "make a namespace": "EPERM",  # RestrictNamespaces=
    "make a set-user-ID program": "EPERM",  # RestrictSUIDSGID=
    "choose its processors": "EPERM",  # SystemCallFilter=, without @resources
    "lock memory": "EPERM",  # SystemCallFilter=, without @memlock
    "change its personality": "EPERM",  # LockPersonality=
    "ask the kernel for interfaces": "EAFNOSUPPORT",  # RestrictAddressFamilies=
}
# Of the attempts, what each line of the document's table gives back.
GIVEN_BACK = {
    "ReadWritePaths=/srv/open": "write outside of run/",
    "ProtectHome=read-only": "read below /home",
    "MemoryDenyWriteExecute=no": "make code at run time",
    "SystemCallFilter=@resources": "choose its processors",
    "RestrictAddressFamilies=AF_NETLINK": "ask the kernel for interfaces",
}


def blocks(section: str = SECTION) -> list[str]:
    """Its commands, block by block."""
    return [
        block.replace("\n    ", "\n").strip() for block in re.findall(r"(?<=\n\n)((?:    .*\n)+)", section)
    ]


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """With the project in /srv/blog, and both services running."""
    with booted() as machine:
        machine.run("mkdir -m 755 /srv/blog; mkdir -m 1777 /srv/open; mount -t tmpfs none /var/log")
        machine.install()
        for name, text in PROJECT.items():
            machine.run(f"mkdir -p {Path(name).parent}; cat > {name}", stdin=text)
        machine.run("cp -r /srv/source/conf/deploy conf/")
        for block in blocks()[:2]:
            machine.run(block)
        send(machine, "first")
        await_handled(machine, "first")
        yield machine


def send(machine: Machine, *names: str) -> None:
    """To port 25, a message for each."""
    machine.python(f"""
import smtplib
with smtplib.SMTP("127.0.0.1", 25, timeout=60) as client:
    for name in {names!r}:
        client.sendmail("ann@s.example", [name + "@d.example"], "Subject: x\\r\\n\\r\\nHello\\r\\n")
""")


def await_handled(machine: Machine, *names: str) -> None:
    handled = " ".join(f"run/handled/{name}" for name in names)
    wait_until(lambda: machine.attempt(f"ls {handled}").returncode == 0)


def attempts(machine: Machine) -> dict[str, str]:
    """Those of a worker of now."""
    machine.run("rm -f run/attempts.json")
    send(machine, "attempts")
    wait_until(lambda: machine.attempt("test -e run/attempts.json").returncode == 0)
    found: dict[str, str] = json.loads(machine.run("cat run/attempts.json"))
    return found


@contextmanager
def drop_in(machine: Machine, *lines: str) -> Iterator[None]:
    """The pool's unit with these lines, as after `systemctl edit`."""
    renewed = "systemctl daemon-reload; systemctl restart maildefer-pool"
    file = "/etc/systemd/system/maildefer-pool.service.d/override.conf"
    try:
        machine.run(
            f"mkdir -p $(dirname {file}); cat > {file}; {renewed}", stdin="\n".join(["[Service]", *lines, ""])
        )
        yield
    finally:
        machine.run(f"rm -r $(dirname {file}); {renewed}")


def shown(machine: Machine, name: str) -> str:
    """Of the pool's service."""
    return machine.run(f"systemctl show --value -p {name} maildefer-pool").strip()


def processes(machine: Machine, unit: str) -> list[str]:
    return machine.run(f"cat /sys/fs/cgroup/system.slice/{unit}.service/cgroup.procs").split()


def workers(machine: Machine) -> set[str]:
    return set(machine.run("pgrep -u maildefer -f '^maildefer: worker '").split())


def test_mail_to_port_25_is_handled_across_a_reload_and_a_restart_of_both(machine: Machine) -> None:
    waves = [[f"wave-{wave}-{number}" for number in range(20)] for wave in range(3)]
    send(machine, *waves[0])
    await_handled(machine, *waves[0])
    before = workers(machine)
    machine.run("systemctl reload maildefer-pool maildefer-intake")
    send(machine, *waves[1])
    await_handled(machine, *waves[1])
    wait_until(lambda: len(workers(machine) - before) == len(before))
    machine.run("systemctl restart maildefer-pool maildefer-intake")
    send(machine, *waves[2])
    await_handled(machine, *waves[2])
    entries = "find run/queue/{new,cur,tmp,.later,.dead} -type f ! -name maildirfolder"
    wait_until(lambda: machine.run(f"bash -c '{entries}'") == "")
    assert "EPERM" not in machine.logs()


def test_both_stop_cleanly_and_the_next_connection_starts_the_front_end_again(machine: Machine) -> None:
    machine.run("systemctl stop maildefer-pool maildefer-intake")
    for unit in USERS:
        told = machine.run(f"systemctl show -p Result -p ExecMainStatus -p ActiveState {unit}").split()
        assert sorted(told) == ["ActiveState=inactive", "ExecMainStatus=0", "Result=success"]
    send(machine, "after-the-stop")
    machine.run("systemctl start maildefer-pool")
    await_handled(machine, "after-the-stop")


def test_the_message_of_a_killed_pool_is_handled_by_the_one_that_systemd_starts(machine: Machine) -> None:
    """Which sees that the lease of the one before is a dead process's, of this boot."""
    send(machine, "killed")
    await_handled(machine, "killed")
    assert "event=lease.fenced" in machine.run("cat /srv/maildefer-pool.log")


def test_a_pool_that_hangs_is_ended_by_the_watchdog_and_its_successor_handles_mail(machine: Machine) -> None:
    with drop_in(machine, "WatchdogSec=6"):  # which the pool feeds every two seconds
        pid = shown(machine, "MainPID")
        first = shown(machine, "WatchdogTimestampMonotonic")
        wait_until(lambda: shown(machine, "WatchdogTimestampMonotonic") != first)
        machine.run("systemctl kill --signal=STOP --kill-whom=main maildefer-pool")
        wait_until(lambda: shown(machine, "MainPID") not in (pid, "0"))
        send(machine, "after-the-watchdog")
        await_handled(machine, "after-the-watchdog")


def test_the_log_is_in_the_journal(machine: Machine) -> None:
    machine.run("printf '[Journal]\\nReadKMsg=no\\nAudit=no\\n' > /etc/systemd/journald.conf")
    machine.run("systemd-run --quiet --unit=journal /lib/systemd/systemd-journald")
    wait_until(lambda: machine.attempt("test -S /run/systemd/journal/stdout").returncode == 0)
    with drop_in(machine, "StandardOutput=journal", "StandardError=inherit"):
        send(machine, "told")
        await_handled(machine, "told")
        lines = "journalctl --directory=/run/log/journal --unit=maildefer-pool --output=cat --no-pager"
        wait_until(lambda: "event=attempt.ended" in machine.run(lines))
        assert "event=pool.started" in machine.run(lines)


def test_a_log_file_is_rotated_as_the_document_has_it_and_the_pool_goes_on_in_a_new_one(
    machine: Machine,
) -> None:
    [install] = blocks(PAGE.partition("\n## The log\n")[2].partition("\n## ")[0])
    log, folder = "/var/log/maildefer/pool.log", "/etc/systemd/system/maildefer-pool.service.d"
    try:
        machine.run(install)
        wait_until(lambda: machine.attempt(f"grep -q event=worker.started {log}").returncode == 0)
        machine.run("logrotate --force --state /tmp/state /etc/logrotate.d/maildefer")
        wait_until(lambda: machine.attempt(f"test -e {log}").returncode == 0)
        send(machine, "after-the-rotation")
        await_handled(machine, "after-the-rotation")
        wait_until(lambda: machine.attempt(f"grep -q event=attempt.ended {log}").returncode == 0)
        assert "event=pool.started" in machine.run(f"cat {log}.1")
        told = machine.run(f"stat -c '%n %U %a' /var/log/maildefer {log}").split()
        assert told == ["/var/log/maildefer", "maildefer", "750", log, "maildefer", "640"]
    finally:
        machine.run(f"rm -r {folder}; systemctl daemon-reload; systemctl restart maildefer-pool")


def test_mail_to_the_socket_file_is_handled(machine: Machine) -> None:
    """Of Postfix on the same host, which brings its group along."""
    front_end = PAGE.partition("\n### The front end\n")[2].partition("\n### ")[0]
    [boot, install] = blocks(front_end)[:2]
    assert boot == 'settings.receiver = SMTPReceiver(listen=["smtp:systemd:mx", "lmtp:systemd:lmtp"])'
    machine.run("getent group postfix || groupadd postfix")
    machine.run(f"sed -i 's/^settings.receiver = .*/{boot}/' conf/boot.py")
    machine.run(install)
    machine.python("""
import smtplib
with smtplib.LMTP("/run/maildefer-lmtp", timeout=60) as client:
    client.sendmail("ann@s.example", ["by-lmtp@d.example"], "Subject: x\\r\\n\\r\\nHello\\r\\n")
""")
    await_handled(machine, "by-lmtp")


def test_each_is_found_by_its_own_user(machine: Machine) -> None:
    assert "supervise" in machine.run(blocks()[2])


@pytest.mark.parametrize("unit", USERS)
def test_each_process_of_a_service_is_its_user_without_a_capability_below_a_filter(
    machine: Machine, unit: str
) -> None:
    uid = machine.run(f"id -u {USERS[unit]}").strip()
    found = [  # a child between a template and a worker ends at once
        (pid, text)
        for pid in processes(machine, unit)
        if (text := machine.run(f"cat /proc/{pid}/status 2>/dev/null || true"))
    ]
    assert len(found) >= 3
    for pid, text in found:
        status = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        assert status["Uid"].split() == [uid] * 4
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
        assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
        uid_map = machine.run(f"cat /proc/{pid}/uid_map 2>/dev/null || true")
        assert uid_map.split() != ["0", "0", "4294967295"]


def test_the_attempts_of_a_worker_are_refused(machine: Machine) -> None:
    assert attempts(machine) == REFUSED


def test_the_attempts_of_a_front_end_are_refused(machine: Machine) -> None:
    assert json.loads(machine.run("cat /run/maildefer-intake/attempts.json")) == REFUSED


def test_without_the_unit_the_same_user_succeeds_in_all_of_them(machine: Machine) -> None:
    code = (
        "import sys; sys.dont_write_bytecode = True; from conf.attempts import write; write('/tmp/free.json')"
    )
    machine.run(f'runuser -u maildefer -- .venv/bin/python -c "{code}"')
    assert json.loads(machine.run("cat /tmp/free.json")) == dict.fromkeys(REFUSED, "done")


def test_each_line_that_the_document_has_for_handlers_gives_back_what_it_says(machine: Machine) -> None:
    lines = re.findall(r"^\| .* \| `(.*=.*)` \|$", SECTION, re.MULTILINE)
    assert lines == list(GIVEN_BACK)
    with drop_in(machine, *lines):
        assert attempts(machine) == REFUSED | dict.fromkeys(GIVEN_BACK.values(), "done")
