"""Commands that start, steer and stop real processes."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from maildefer.cli import process_usage, status_survey
from maildefer.cli.commands.status import _show, _show_front_end, _show_queue
from maildefer.cli.receiver_process import ReceiverService
from maildefer.control import local_processes as control
from maildefer.control import queue_status
from maildefer.control.local_processes import LocalStatus
from maildefer.control.requests import LiveLease, read_leases
from maildefer.doctor import examine as doctor
from maildefer.doctor.findings import refuse
from maildefer.host import pidfile, runtime_dir
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Format, create_queue
from maildefer.maildir.upkeep.closures import LONGEST_SECONDS, Closures
from maildefer.maildir.upkeep.leases import Lease, LeaseHolder
from tests.support.monitor import FileConnection, get
from tests.support.queues import holder, somebody_else

pytestmark = pytest.mark.lifecycle

PATIENCE_SECONDS = 60.0

RECEIVERS = """
import os, threading, time
from maildefer.utils import settings

class Serves:
    def start(self): open("started", "w").close()
    def close(self): open("closed", "w").close()

class Shows(Serves):
    def start(self): open("started", "w").write(open("/proc/thread-self/status").read())

class Fronts(Shows):
    runs_handlers = False

class Loops:
    def __init__(self): self.ending = threading.Event()
    def start(self):
        open("started", "w").close()
        self.ending.wait()
        open("finished", "w").close()
    def close(self): self.ending.set()

class Reports(Serves):
    def status(self): return {}

class Fails:
    def start(self): raise OSError(98, "address already in use")

settings.receiver = {}()
"""


def until(condition, what="it"):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)
    return found


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as facts:
            return facts.read().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def command(*arguments: str, **options):
    return subprocess.run(
        [sys.executable, "-m", "maildefer", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS * 2,
        check=False,
        **options,
    )


def status(*arguments: str):
    """What `status` says where all answer: asked again, where a busy machine took longer than it waits."""

    def ask():
        ended = command("status", *arguments)
        return None if "no answer within" in ended.stdout + ended.stderr else ended

    return until(ask, "an answer to status")


def port_of_sink() -> str:
    """The port of a sink that was started."""
    said = re.search(r"at=smtp://127\.0\.0\.1:(\d+)", Path("logs/log.out").read_text())
    assert said is not None
    return said[1]


@pytest.fixture
def project():
    """The working directory as a project with a settings module; whatever still runs at the end is killed."""
    for package in ("conf", "workers"):
        os.mkdir(package)
        Path(package, "__init__.py").touch()
    Path("conf/settings.py").write_text("queues = {'run/queue': ['workers.noop']}\nworkers = 2\n")
    Path("workers/noop.py").write_text(
        "from maildefer.routing import route, stateless\n\n"
        "@route('(to)@.+', to='.+')\n@stateless\ndef START(message, to=None):\n    pass\n"
    )
    os.mkdir("run")
    yield Path.cwd()
    for file in Path("run").glob("*.pid"):
        pid = int(file.read_text().split()[0])
        if not is_gone(pid):
            os.kill(pid, signal.SIGKILL)


def boot(name: str, receiver: str) -> None:
    Path(f"conf/{name}.py").write_text(RECEIVERS.replace("{}", receiver))


# The sink


def test_the_sink_keeps_what_it_is_sent(project):
    started = command("log", "--port", "0")
    assert started.returncode == 0, started.stderr
    port = port_of_sink()
    sent = command(
        "send", "--port", port, "--sender", "a@b.example", "--to", "c@d.example", "--body", "hello sink"
    )
    assert sent.returncode == 0, sent.stderr
    (told,) = [json.loads(line) for line in command("queue", "list", "run/log", "--json").stdout.splitlines()]
    assert told["sender"] == "a@b.example"
    assert told["recipients"] == [{"address": "c@d.example"}]
    assert "hello sink" in command("queue", "show", "run/log", told["queue_id"]).stdout
    stopped = command("stop", "--pid", "run/log.pid")
    assert stopped.returncode == 0, stopped.stderr
    assert is_gone(int(started.stdout))
    assert not os.path.exists("run/log.pid")


@pytest.mark.slow
def test_a_sink_counts_as_up_once_it_listens_however_long_that_takes(project):
    Path("sitecustomize.py").write_text(
        "import sys, time\nif 'maildefer.intake' in sys.orig_argv: time.sleep(2.5)\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert command("log", "--port", "0", env=environ).returncode == 0
    assert port_of_sink()
    assert command("stop", "--pid", "run/log.pid").returncode == 0


def test_what_a_sink_keeps_is_counted_and_waits_for_nobody(project):
    assert command("log", "--port", "0").returncode == 0
    port = port_of_sink()
    command("send", "--port", port, "--sender", "a@b.example", "--to", "c@d.example", "--body", "hello")
    shown = status()
    assert "run/log: 1 waiting" in shown.stdout
    assert shown.returncode == 0, shown.stderr
    command("stop", "--pid", "run/log.pid")


def test_mail_that_a_front_end_takes_and_nobody_serves_is_degraded(project):
    Path("conf/boot.py").write_text(
        "from maildefer.server import SMTPReceiver\nfrom maildefer.utils import settings\n"
        "settings.receiver = SMTPReceiver('127.0.0.1', 0, queue='run/other')\n"
    )
    Path("conf/settings.py").write_text("queues = {'run/queue': ['workers.noop']} | {'run/other': []}\n")
    started = command("start")
    assert started.returncode == 0, started.stderr
    assert status().returncode == 0
    assert command("push", "run/other", "-r", "a@b.example", input="Subject: x\n\nhi\n").returncode == 0
    shown = status()
    assert shown.returncode == 4
    assert "run/other: 1 waiting" in shown.stdout
    assert "degraded: run/other: nobody serves it, and 1 entry waits" in shown.stderr
    command("stop")


def test_a_front_end_answers_for_its_health_until_it_is_stopped(project):
    Path("conf/boot.py").write_text(
        "from maildefer.server import SMTPReceiver\nfrom maildefer.utils import settings\n"
        "settings.receiver = SMTPReceiver('127.0.0.1', 0)\n"
    )
    Path("conf/settings.py").write_text(
        "queues = {'run/queue': ['workers.noop']}\nhealth_config = {'socket': 'run/health.sock'}\n"
    )
    assert command("start").returncode == 0

    def answer(path: str) -> tuple[int, str]:
        try:
            return get(FileConnection(Path("run/health.sock")), path)
        except OSError:  # not yet, or no longer
            return 0, ""

    until(lambda: answer("/ready") == (200, "ready\n"))
    assert 'maildefer_accepted_total{front_end="intake"} 0.0' in answer("/metrics")[1]
    assert command("stop").returncode == 0
    until(lambda: answer("/live")[0] == 0)


def test_the_queues_that_settings_write_out_are_shown_and_nothing_of_theirs_is_run(project):
    Path("conf/settings.py").write_text(
        "open('ran', 'w')\n"
        "queues: dict = {'run/queue': ['workers.noop'], 'run/kept': [], 'run/none': ['workers.noop']}\n"
    )
    for name in ("queue", "kept"):
        create_queue(f"run/{name}")
        assert command("push", f"run/{name}", "-r", "a@b.example", input="hi\n").returncode == 0
    shown = status()
    assert shown.returncode == 3
    assert "run/queue: 1 waiting" in shown.stdout
    assert "run/kept" not in shown.stdout + shown.stderr
    assert "run/none" not in shown.stdout + shown.stderr
    assert not os.path.exists("ran")


def test_a_second_process_with_the_same_pid_file_is_refused_until_forced(project):
    first = command("log", "--port", "0")
    second = command("log", "--port", "0")
    assert second.returncode == 1
    assert f"process {first.stdout.strip()} already runs" in second.stderr
    third = command("log", "--port", "0", "--force")
    assert third.returncode == 0, third.stderr
    assert is_gone(int(first.stdout))
    assert command("stop", "--all", "run").returncode == 0
    assert is_gone(int(third.stdout))


def test_an_address_in_use_is_told_with_its_exit_code(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = command("log", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 78
    assert "can't listen on" in ended.stderr
    assert not os.path.exists("run/log.pid")


# Boot modules


@pytest.mark.parametrize(("receiver", "trace"), [("Serves", "closed"), ("Loops", "finished")])
def test_a_receiver_is_started_and_ended_in_good_order(project, receiver, trace):
    boot("queue", receiver)
    started = command("start", "--boot", "conf.queue", "--pid", "run/queue.pid")
    assert started.returncode == 0, started.stderr
    pid = int(started.stdout)
    assert Path("run/queue.pid").read_text().split()[0] == str(pid)
    assert os.getsid(pid) == pid
    assert os.path.exists("started")
    assert command("stop", "--pid", "run/queue.pid").returncode == 0
    assert is_gone(pid)
    assert os.path.exists(trace)
    assert not os.path.exists("run/queue.pid")


def test_the_default_pid_file_is_salmons(project):
    boot("boot", "Serves")
    pid = int(command("start").stdout)
    assert int(Path("run/smtp.pid").read_text().split()[0]) == pid
    assert command("stop").returncode == 0
    assert is_gone(pid)


def test_without_daemon_it_is_the_very_process(project):
    boot("boot", "Serves")
    with subprocess.Popen([sys.executable, "-m", "maildefer", "start", "--no-daemon"]) as process:
        until(lambda: os.path.exists("run/smtp.pid") and os.path.exists("started"))
        assert Path("run/smtp.pid").read_text().split()[0] == str(process.pid)
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert os.path.exists("closed")


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_a_receiver_has_no_use_for_does_not_end_it(project, signum):
    boot("boot", "Loops")
    pid = int(command("start").stdout)
    os.kill(pid, signum)
    assert command("stop").returncode == 0
    assert os.path.exists("finished"), "it went on, and ended in good order"


@pytest.mark.usefixtures("looks_are_short")
def test_a_receiver_ends_though_its_pid_files_mount_hangs(project, monkeypatch):
    host, own = this_host(), os.getpid()
    service = ReceiverService.__new__(ReceiverService)
    service._record = runtime_dir.RuntimeRecord(
        pid=own, start_time=1, kind="start", pidfile=os.path.abspath("run/smtp.pid"), started=1.0
    )
    service._pidfile = pidfile.for_process(own, host, kind="start")
    runtime_dir.write_record(service._record, host)

    def hang(*_):
        assert os.getpid() != own, "it would hang itself"
        time.sleep(60)

    monkeypatch.setattr(pidfile, "remove", hang)
    service._unregister()
    assert not list(Path(os.environ["MAILDEFER_RUNTIME_DIR"]).rglob("*.json"))


def test_a_receiver_that_does_not_start_ends_the_process(project):
    boot("boot", "Fails")
    ended = command("start")
    assert ended.returncode == 1
    assert "address already in use" in ended.stderr
    assert not os.path.exists("run/smtp.pid")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = (\n", "conf/boot.py:1: syntax error"),
        ("pass\n", "sets no settings.receiver"),
        ("1/0\n", "boot.py:1"),
    ],
)
def test_a_boot_module_that_cannot_be_used_is_bad_configuration(project, text, told):
    Path("conf/boot.py").write_text(text)
    ended = command("start")
    assert ended.returncode == 78
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_boot_module_that_meets_an_error_of_ours_tells_its_remedy_and_no_other(project):
    create_queue("run/queue")
    Path("run/queue/.maildefer/format").write_text('{"version": 99, "beat_seconds": 5, "ttl_seconds": 45}')
    Path("conf/boot.py").write_text("from maildefer import Queue\nQueue('run/queue').push('x')\n")
    told = command("start").stderr
    assert "boot.py:2: " in told
    assert "upgrade maildefer on this host" in told
    assert "correct that line" not in told


def test_what_the_application_logs_is_in_the_pools_line_format(project):
    boot("boot", "Serves")
    text = "import logging\n" + Path("conf/boot.py").read_text().replace(
        "def start(self):", "def start(self): logging.getLogger('app').info('up'); logging.debug('deep');", 1
    )
    Path("conf/boot.py").write_text(text)
    command("start")
    assert "event=handler.logged level=info logger=app message=up" in Path("logs/smtp.out").read_text()
    assert "deep" not in Path("logs/smtp.out").read_text()
    command("start", "--force", "--debug")
    assert "message=deep" in Path("logs/smtp.out").read_text()


def test_what_a_boot_module_and_its_children_print_is_in_the_log_to_the_last_word(project):
    boot("boot", "Serves")
    text = "import os\nprint('booting')\n" + Path("conf/boot.py").read_text().replace(
        "def start(self):", "def start(self): os.system('echo a child');", 1
    )
    Path("conf/boot.py").write_text(text + "\nimport atexit; atexit.register(os.write, 2, b'the last')\n")
    command("start")
    command("stop")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while 'text="the last"' not in Path("logs/smtp.out").read_text():
        assert time.monotonic() < deadline
    told = Path("logs/smtp.out").read_text()
    assert "event=handler.printed stream=stdout text=booting" in told
    assert 'event=handler.printed text="a child"' in told


def test_the_umask_is_octal(project):
    boot("boot", "Serves")
    assert command("start", "--umask", "0027").returncode == 0
    assert os.stat("started").st_mode & 0o777 == 0o640
    command("stop")
    assert command("start", "--umask", "99").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_privileges_are_dropped_before_the_receiver_starts(project):
    os.chmod(".", 0o777)
    boot("boot", "Serves")
    started = command("start", "--uid", "65534", "--gid", "65534")
    assert started.returncode == 0, started.stderr
    assert os.stat("started").st_uid == 65534
    assert command("stop").returncode == 0
    assert is_gone(int(started.stdout))
    assert command("start", "--uid", "65534").returncode == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("more", [("--no-daemon",), ()], ids=["foreground", "background"])
def test_without_the_right_to_become_the_user_a_start_says_what_to_do(project, more):
    boot("boot", "Serves")
    refused = command("start", "--uid", "65534", "--gid", "65534", *more, preexec_fn=become_nobody_else)
    assert refused.returncode == 78
    assert (
        "may not become user 65534, group 65534: start it as root, or as that very user without"
        in refused.stderr
    )


def become_nobody_else() -> None:
    """After the exec, root is without the capabilities to become another user."""
    prctl, drop_from_bounding_set = ctypes.CDLL(None).prctl, 24
    for capability in (6, 7):  # CAP_SETGID, CAP_SETUID: capabilities(7)
        prctl(drop_from_bounding_set, capability, 0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize(("receiver", "bounding", "no_new"), [("Fronts", 0, "1"), ("Shows", None, "0")])
def test_who_becomes_another_user_and_runs_no_handler_can_gain_no_rights(project, receiver, bounding, no_new):
    """A receiver's handlers may execute a program of another group, such as Postfix's sendmail, as with Salmon."""
    os.chmod(".", 0o777)
    boot("boot", receiver)
    assert command("start", "--uid", "65534", "--gid", "65534").returncode == 0
    facts = dict(line.split(":\t") for line in Path("started").read_text().splitlines())
    assert command("stop").returncode == 0
    assert (facts["NoNewPrivs"], facts["Groups"].strip(), int(facts["CapEff"], 16)) == (no_new, "", 0)
    assert bounding is None or int(facts["CapBnd"], 16) == bounding


# Stop and status without a pool


@pytest.fixture
def stranger():
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_stale_pid_file_is_tidied_and_its_reused_pid_left_alone(project, stranger):
    dead = pidfile.for_process(stranger.pid, this_host(), kind="start")
    pidfile.write("run/smtp.pid", replace(dead, start_time=dead.start_time - 1))
    ended = command("stop", "--all", "run")
    assert ended.returncode == 0, ended.stderr
    assert stranger.poll() is None
    assert not os.path.exists("run/smtp.pid")


def test_another_programs_pid_file_is_no_reason_to_signal_it(project, stranger):
    Path("run/other.pid").write_text(f"{stranger.pid}\n")
    ended = command("stop", "--all", "run")
    assert ended.returncode == 1
    assert "run/other.pid" in ended.stdout
    assert stranger.poll() is None


def test_status_says_by_its_exit_code_that_nothing_runs(project):
    ended = status()
    assert ended.returncode == 3
    assert "maildefer supervise" in ended.stderr
    assert command("status", "--pid", "run/none.pid").returncode == 1, "as Salmon's does"


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"paused_for": "ENOENT", "paused_seconds": 9.0}, "paused for 9 s: nothing has a route"),
        ({"paused_for": "EIO", "paused_seconds": 9.0}, "paused for 9 s: a fault of the storage (EIO)"),
        ({"may_claim": False}, "no good beat"),
        ({"state": "absent", "may_claim": False}, "not joined"),
        ({"state": "fenced", "may_claim": False}, "fenced"),
    ],
)
def test_status_says_in_words_why_nothing_is_claimed(facts, told, capsys, queue):
    record = runtime_dir.RuntimeRecord(
        pid=1 << 30, start_time=1, kind="supervise", pidfile="/run/p.pid", started=1.0
    )
    sound = {"queue": "run/queue", "state": "served", "may_claim": True, "paused_for": None}
    _show(LocalStatus(record=record, status={"queues": [sound]}))
    assert "run/queue" not in capsys.readouterr().out
    _show(LocalStatus(record=record, status={"queues": [sound | facts]}))
    assert f"run/queue: {told}" in capsys.readouterr().out

    lease = queue_status._serving(LiveLease(queue=queue.path, name="x-1-2", beat=3, status=sound | facts), 60)
    _show_queue(replace(queue_status.read_queue_status(queue.path, 10), serving=(lease,)))
    assert told in capsys.readouterr().out


def test_status_says_that_a_reload_was_refused(capsys):
    record = runtime_dir.RuntimeRecord(
        pid=1 << 30, start_time=1, kind="supervise", pidfile="/run/p.pid", started=1.0
    )
    refusal: dict[str, object] = {"reload_refused": "workers/x.py:1: syntax error"}
    _show(LocalStatus(record=record, status=refusal))
    assert "the old application goes on: workers/x.py:1: syntax error" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["pause", "resume", "reload"])
def test_steering_what_does_not_run_says_so_in_a_project_without_run_too(maildefer, project, verb):
    os.rmdir("run")
    ended = maildefer(verb)
    assert ended.code == 1
    assert "nothing was started" in ended.err
    asked = maildefer(verb, "--all-hosts")
    assert asked.code == 1
    assert "name the queues" in asked.err
    os.mkdir("run")


def test_a_pool_with_a_lease_name_in_each_queue_is_asked_once(maildefer, project):
    there = LeaseHolder(
        host="b", boot_id="1", pid_namespace="1", pid=7, start_time=1, keeper_pid=8, keeper_start_time=1
    )
    names = {"one": ("b-7-aa", there), "two": ("b-7-bb", replace(there, keeper_pid=9))}
    names |= {"three": ("b-8-cc", replace(there, pid=8))}
    for name, (lease, whose) in names.items():
        Lease.join(create_queue(f"run/{name}"), lease, whose)
    asked = maildefer("pause", "--all-hosts", *(f"run/{name}" for name in names))
    assert [line.split()[1] for line in asked.out.splitlines()] == ["b-7-aa", "b-8-cc"]
    assert "whole pools" in asked.err


def test_what_a_reader_may_not_look_at_is_not_nothing(maildefer, monkeypatch):
    project = tempfile.TemporaryDirectory()  # where others may go
    monkeypatch.chdir(project.name)
    queue = create_queue("run/queue")
    os.chmod(project.name, 0o751)
    os.chmod("run", 0o711)
    assert maildefer("status", queue.path).code == 3  # and all is imported that others may not read here
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", f"{project.name}/runtime")
    os.mkdir("runtime", 0o700)
    os.chown("runtime", 65534, 65534)
    with somebody_else():
        ended = maildefer("status")
    assert ended.code == 1
    assert f"{os.path.abspath('run')}: Permission denied" in ended.err
    assert "nothing runs" not in ended.err
    os.chmod(queue.path, 0o700)
    with somebody_else():
        ended = maildefer("status", "run/queue")
    assert ended.code == 1
    assert "permission to read" in ended.err
    assert "write permission" not in ended.err
    assert "nothing runs" not in ended.err
    project.cleanup()


def test_a_stopped_front_end_is_told_apart_from_an_idle_one(project):
    boot("boot", "Reports")
    pid = int(command("start").stdout)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "it is stopped, or hangs" in command("status").stdout
    finally:
        os.kill(pid, signal.SIGCONT)
    assert command("stop").returncode == 0


def test_status_shows_a_front_end_of_a_boot_module(project):
    Path("conf/boot.py").write_text(
        "from maildefer.server import SMTPReceiver\nfrom maildefer.utils import settings\n"
        "settings.receiver = SMTPReceiver('127.0.0.1', 0, queue='run/queue', max_backlog=1)\n"
    )
    started = command("start", "--boot", "conf.boot", "--pid", "run/smtp.pid")
    assert started.returncode == 0, started.stderr
    Path("run/queue/new/1.M1P1Q1R1.host").touch()

    def shown() -> str:
        return status().stdout

    until(lambda: "refuses for now (452): " in shown(), "the refusal is shown")
    assert re.search(
        r"intake \d+  smtp://127.0.0.1:\d+  0 of 500 connections  0 messages taken  up to 1", shown()
    )
    Path("run/queue/new/1.M1P1Q1R1.host").unlink()
    until(lambda: "refuses for now" not in shown(), "its end")


def test_a_front_end_of_a_boot_module_tells_its_verdict_on_a_reload(project):
    Path("conf/boot.py").write_text(
        "from maildefer.server import SMTPReceiver\nfrom maildefer.utils import settings\n"
        "settings.receiver = SMTPReceiver('127.0.0.1', 0, queue='run/queue')\n"
    )
    started = command("start")
    assert started.returncode == 0, started.stderr
    accepted = command("reload", "--pid", "run/smtp.pid")
    assert (accepted.returncode, "accepted" in accepted.stdout) == (0, True), accepted.stderr
    text = Path("workers/noop.py").read_text()
    Path("workers/noop.py").write_text("1/0\n")
    refused = command("reload", "--pid", "run/smtp.pid")
    assert refused.returncode == 78
    assert "workers/noop.py" in refused.stderr
    Path("workers/noop.py").write_text(text)
    assert command("stop").returncode == 0


@pytest.mark.parametrize(
    ("own", "of_all", "shown"), [(3, 3, "3 of 500 connections"), (3, 7, "3 connections, 7 of 500 in all")]
)
def test_status_tells_of_one_process_and_of_all_how_many_connections_there_are(own, of_all, shown, capsys):
    told = {
        "kind": "intake",
        "pid": 1,
        "connections": own,
        "connections_of_all": of_all,
        "max_connections": 500,
    }
    _show_front_end(told)
    assert f"  {shown}  " in capsys.readouterr().out


def test_what_other_hosts_workers_are_on_is_told_and_how_fast_their_pool_is(queue, capsys):
    busy = {"pid": 4711, "state": "handling", "seconds": 12.0, "entry": "1.x.there"}
    told = {"workers": [busy, {"pid": 4712, "state": "idle"}], "rate_per_second": 2.5}
    lease = queue_status._serving(LiveLease(queue=queue.path, name="there-1-2", beat=3, status=told), 60)
    seen = replace(queue_status.read_queue_status(queue.path, 10), serving=(lease,))
    _show_queue(seen)
    shown = capsys.readouterr().out
    assert "1 of its workers busy  its pool 2.5/s" in shown
    assert "on there-1-2: 1 busy, the longest for 12 s: worker 4711  1.x.there" in shown
    assert "4712" not in shown
    _show_queue(seen, {"there-1-2"})
    assert "4711" not in capsys.readouterr().out, "this host's are listed above"


def test_a_lease_that_is_left_over_is_no_sign_of_life(maildefer, queue):
    """After a power failure of all hosts, or a killed pool, nobody is there who would fence it."""
    host = this_host()
    ended = subprocess.Popen(["true"])
    ended.wait()
    facts: dict[str, object] = {"boot_id": host.boot_id, "pid_namespace": host.pid_namespace}
    facts |= {"pid": ended.pid, "start_time": 1, "keeper_pid": ended.pid, "keeper_start_time": 2}
    lease = Path(queue.leases, f"{host.label}-4242-0123456789ab.7")
    lease.write_text(json.dumps(facts))
    here = maildefer("status", queue.path)
    assert here.code == 3
    assert "has ended" in here.out

    lease.write_text(json.dumps(facts | {"boot_id": "another host's"}))
    assert maildefer("status", queue.path).code == 0, "it has only just joined"
    told = Path(queue.status, f"{lease.stem}.json")
    told.write_text("{}")
    assert maildefer("status", queue.path).code == 0
    os.utime(told, (time.time() - 300, time.time() - 300))
    elsewhere = maildefer("status", queue.path)
    assert elsewhere.code == 3
    assert "silent for 5 min" in elsewhere.out


def test_a_host_is_silent_once_its_last_beat_is_longer_ago_than_the_ttl(maildefer, tmp_path):
    agreed = Format(beat_seconds=0.1, ttl_seconds=0.5)
    queue = create_queue(str(tmp_path / "q"), format=agreed)
    lease = Lease.join(queue, "b-7-aa", holder())
    Path(queue.status, "b-7-aa.json").write_text("{}")
    os.utime(lease.path, (1, 1))  # it was written long ago
    lease.renew()

    def is_silent() -> bool:
        ended = maildefer("status", queue.path)
        return (ended.code, "silent for" in ended.out) == (3, True)

    until(is_silent, "the silence")
    assert maildefer("status", queue.path).code == 3


def test_a_lease_whose_beats_do_not_show_is_judged_by_its_status_file(queue):
    Lease.join(queue, "b-7-aa", holder()).renew()
    os.utime(f"{queue.leases}/b-7-aa.1")
    Path(queue.status, "b-7-aa.json").write_text("{}")
    (lease,) = read_leases(queue.path)
    assert lease.beaten_seconds is None, "a rename may set no change time: it was written just now"
    os.utime(f"{queue.leases}/b-7-aa.1", (1, 1))
    (lease,) = read_leases(queue.path)
    assert lease.beaten_seconds is not None
    silent = [
        queue_status._serving(replace(lease, beaten_seconds=beaten, told_seconds=told), 8).silent
        for beaten, told in ((7, 999), (9, 1), (None, 67), (None, 69), (None, None))
    ]
    assert silent == [False, True, False, True, False]


def test_a_hung_mount_does_not_hang_status(maildefer, queue, monkeypatch):
    monkeypatch.setattr(status_survey, "read_queue_status", lambda *_: time.sleep(60))
    monkeypatch.setattr(status_survey, "SECONDS", 0.2)
    began = time.monotonic()
    ended = maildefer("status", queue.path)
    assert time.monotonic() - began < 50
    assert "hangs" in ended.err
    assert ended.code == 3


def test_a_folder_of_pid_files_that_hangs_is_not_nothing(maildefer, project, monkeypatch):
    monkeypatch.setattr(control, "queues_named", lambda *_: time.sleep(60))
    monkeypatch.setattr(status_survey, "SECONDS", 0.2)
    ended = maildefer("status")
    assert f"{os.path.abspath('run')}: no answer within 0.2 s: its filesystem hangs" in ended.err
    assert "nothing runs" not in ended.err
    assert ended.code == 1


def test_a_process_whose_memory_cannot_be_read_does_not_hang_status(monkeypatch):
    """As /proc of one that hangs in a page fault."""
    own = os.getpid()

    def hang(_):
        assert os.getpid() != own, "it would hang itself"
        time.sleep(60)

    monkeypatch.setattr(process_usage, "usage_of_tree", hang)
    monkeypatch.setattr(status_survey, "SECONDS", 0.2)
    record = runtime_dir.RuntimeRecord(
        pid=own, start_time=1, kind="supervise", pidfile="/run/p.pid", started=1.0
    )
    ((told, used),) = status_survey.look([record], [], elsewhere=False).local
    assert (told.record, used) == (record, None)


def test_all_processes_and_queues_are_looked_at_side_by_side(monkeypatch, queue):
    """Each of them hangs, and is given up after the time for all."""
    monkeypatch.setattr(status_survey, "read_queue_status", lambda *_: time.sleep(60))
    monkeypatch.setattr(control, "ask_process", lambda *_: time.sleep(60))
    monkeypatch.setattr(status_survey, "SECONDS", 2.0)
    records = [
        runtime_dir.RuntimeRecord(
            pid=1 << 30, start_time=1, kind="supervise", pidfile=f"/{n}.pid", started=1.0
        )
        for n in range(20)
    ]
    began = time.monotonic()
    seen = status_survey.look(records, [f"{queue.path}{n}" for n in range(20)], elsewhere=False)
    assert time.monotonic() - began < 50, "one after the other it would be eighty"
    assert {"no answer" in one.problem for one, _ in seen.local} == {True}
    assert {"hangs" in str(counts) for counts in seen.queues.values()} == {True}


def test_a_count_that_takes_too_long_says_that_it_is_not_all(queue, monkeypatch):
    monkeypatch.setattr(queue_status, "_TURN_NAMES", 1)
    for number in range(5):
        Path(queue.new, f"{number}.x.host").touch()
    Path(queue.dead_new, "1.x.host").touch()
    short = queue_status.read_queue_status(queue.path, 0)
    assert (short.complete, "waiting" in short.partial) == (False, True)
    assert short.waiting < 5
    whole = queue_status.read_queue_status(queue.path, 10)
    assert (whole.complete, whole.partial, whole.waiting, whole.dead) == (True, (), 5, 1)


def test_status_names_the_folders_that_were_not_counted_to_the_end(queue, capsys):
    seen = queue_status.read_queue_status(queue.path, 10)
    _show_queue(replace(seen, waiting=4000, partial=("waiting",), complete=False))
    shown = capsys.readouterr().out
    assert "over 4000 waiting" in shown
    assert ", 0 dead" in shown
    assert "not counted to the end in time: waiting" in shown


def test_a_long_folder_leaves_no_other_uncounted(queue, monkeypatch):
    monkeypatch.setattr(queue_status, "_TURN_NAMES", 10)
    for number in range(25):
        Path(queue.dead_new, f"{number}.x.host").touch()
    Path(queue.new, "1700000000.x.host").touch()
    told = queue_status.read_queue_status(queue.path, 0)
    assert (told.waiting, told.deferred, told.partial) == (1, 0, ("dead",))


def test_a_server_that_is_down_is_degraded_and_a_strangers_domain_is_only_named(maildefer, queue):
    closures = Closures(queue, now=time.time)
    closures.close("127.0.0.1:25", "connection refused\x1b[31m")
    for number in range(7):
        closures.close(f"{number}.example", "connection refused")
    [told] = [json.loads(line) for line in maildefer("status", "--json", queue.path).out.splitlines()]
    assert (told["down_destinations"], len(told["down"])) == (8, 8)
    [server] = told["degraded"]
    assert re.fullmatch(
        r"127\.0\.0\.1:25 is down for .*: connection refused.*; see `maildefer outgoing`", server
    )
    shown = maildefer("status", queue.path).out
    assert shown.count(" is down for ") == 5
    assert "3 more destinations are down: see `maildefer outgoing`" in shown
    assert "\x1b" not in shown


def test_a_destination_that_nothing_is_sent_to_any_more_is_no_longer_down(queue, monkeypatch):
    Closures(queue, now=time.time).close("old.example:25", "connection refused")
    wall = time.time
    assert queue_status.read_queue_status(queue.path, 10).down_destinations == 1
    monkeypatch.setattr(time, "time", lambda: wall() + 60 * 1.1 + LONGEST_SECONDS + 1)
    assert queue_status.read_queue_status(queue.path, 10).down == ()


# A pool


@pytest.fixture
def pool(project):
    """A supervisor of two workers, up and ready, on a queue with a quick beat."""
    create_queue("run/queue", format=Format(beat_seconds=0.3, ttl_seconds=6.0))
    with open("pool.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "maildefer", "supervise", "--pid", "run/pool.pid"], stdout=log, stderr=log
        )
    until(lambda: _workers() and os.path.exists("run/pool.pid"), f"a pool: {Path('pool.log').read_text()}")
    yield process
    if process.poll() is None:
        process.kill()
    process.wait()


def _status():
    lines = status("--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def _workers():
    told = [one for one in _status() if one["kind"] == "supervise" and one["status"]]
    ready = [worker for worker in told[0]["status"]["workers"] if worker["state"] == "idle"] if told else []
    return ready if len(ready) == 2 else None


def _is_paused():
    """None where the pool does not answer in time."""
    told = [one["status"]["paused"] for one in _status() if one["kind"] == "supervise" and one["status"]]
    return told[0] if told else None


def test_a_pool_is_fed_watched_steered_and_stopped(pool):
    pushed = command("push", "run/queue", "-r", "a@b.example", input="Subject: x\n\nx\n")
    assert pushed.returncode == 0, pushed.stderr
    until(lambda: command("queue", "count", "run/queue", "--in", "waiting").stdout == "0\n", "the handling")
    (queue,) = [one for one in _status() if one["kind"] == "queue"]
    assert len(queue["serving"]) == 1
    host = queue["serving"][0]["lease"].rsplit("-", 2)[0]

    assert command("pause").returncode == 0
    until(_is_paused, "the pause by signal")
    assert command("resume").returncode == 0
    until(lambda: _is_paused() is False, "the resumption by signal")
    assert command("pause", "--all-hosts").returncode == 0
    until(_is_paused, "the pause through the mount")
    assert command("resume", "--host", host).returncode == 0
    until(lambda: _is_paused() is False, "the resumption through the mount")
    assert command("pause", "--host", "elsewhere").returncode == 1

    before = {worker["pid"] for worker in until(_workers, "two idle workers")}
    assert command("reload").returncode == 0
    until(lambda: (now := _workers()) and not before & {worker["pid"] for worker in now}, "the reload")

    text = status().stdout
    assert f"supervise {pool.pid}" in text
    assert "0 waiting" in text
    stopped = command("stop", "--all", "run")
    assert stopped.returncode == 0, stopped.stderr
    listed, sent, ended = stopped.stdout.splitlines()
    assert listed == os.path.abspath("run/pool.pid")
    assert (f"process {pool.pid} was sent TERM" in sent, "has ended" in ended) == (True, True)
    assert pool.wait(PATIENCE_SECONDS) == 0
    assert not os.path.exists("run/pool.pid")


def test_a_host_that_serves_several_queues_is_asked_once(maildefer, tmp_path):
    queues = [create_queue(str(tmp_path / name)) for name in ("a", "b")]
    for queue in queues:
        Path(queue.leases, "mx1-0a1b2c-7-0123456789ab.4").touch()
    ended = maildefer("reload", "--no-wait", "--host", "mx1", *(queue.path for queue in queues))
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    asked = [name for queue in queues for name in os.listdir(queue.requests) if name != "done"]
    assert asked == ["mx1-0a1b2c-7-0123456789ab.reload"]


def test_the_lock_outlives_the_command_line(pool):
    ended = command("supervise", "--pid", "run/pool.pid")
    assert ended.returncode == 1
    assert f"process {pool.pid} already runs" in ended.stderr


def test_other_hosts_are_stopped_through_the_mount_or_left_alone(pool):
    elsewhere = {
        **os.environ,
        "MAILDEFER_HOST_ID": "another",
        "MAILDEFER_RUNTIME_DIR": os.path.abspath("other"),
    }
    spared = command("stop", "--all", "run", "--this-host", env=elsewhere)
    assert spared.returncode == 0, spared.stdout
    assert pool.poll() is None
    ended = command("stop", "--all", "run", env=elsewhere)
    assert ended.returncode == 0, ended.stdout
    assert pool.wait(PATIENCE_SECONDS) == 0


def test_supervise_becomes_the_supervisor_with_what_was_asked_for(maildefer, project, monkeypatch):
    executed = []

    def note(path, arguments):
        executed.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", note)
    maildefer(
        "supervise",
        "-w",
        "3",
        "--concurrency",
        "70",
        "--intake",
        "--log-format",
        "json",
        "--log-file",
        "pool.log",
        "run/queue",
    )
    ((python, *module, orders),) = executed
    assert (python, module) == (sys.executable, ["-m", "maildefer.pool"])
    told = json.loads(orders)
    os.fstat(told.pop("lock_fd"))
    assert os.path.basename(told["pidfile"]).startswith("supervise-")
    assert told == {
        "project": os.getcwd(),
        "queues": [os.path.abspath("run/queue")],
        "workers": 3,
        "concurrency": 70,
        "log_file": os.path.abspath("pool.log"),
        "pidfile": told["pidfile"],
        "force": False,
        "intake": True,
        "drain": False,
        "user": "",
        "group": "",
        "log_level": None,
        "log_format": "json",
    }


@pytest.mark.parametrize("file", ["nowhere/pool.log", "run", "settings.txt/pool.log"])
def test_a_log_file_that_cannot_be_opened_ends_a_start_before_anything_runs(
    maildefer, project, monkeypatch, file
):
    (project / "settings.txt").touch()
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it has become the supervisor"))
    ended = maildefer("supervise", "--log-file", file)
    assert ended.code == 78
    assert f"the log can't go to {file}: " in ended.err
    assert list(project.glob("run/*.pid")) == []


def test_a_receiver_whose_log_cannot_be_opened_is_not_started(maildefer, project, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it was started"))
    (project / "logs").write_text("")
    ended = maildefer("start")
    assert ended.code == 78
    assert "the log can't go to " in ended.err
    assert "logs/smtp.out: Not a directory" in ended.err


@pytest.mark.parametrize("arguments", [["--log-format", "xml"], ["-w", "0"]])
def test_supervise_refuses_what_it_does_not_know(maildefer, project, arguments):
    assert maildefer("supervise", *arguments).code == 2


def test_an_unsafe_mount_keeps_a_pool_from_starting_but_for_force(maildefer, project, monkeypatch):
    unsafe = [refuse("filesystem", "it is a soft mount", "mount it hard")]
    monkeypatch.setattr(doctor, "examine_at_start", lambda path: unsafe)
    executed = []
    monkeypatch.setattr(os, "execv", lambda *arguments: executed.append(arguments))
    ended = maildefer("supervise", "run/queue")
    assert ended.code == 78
    assert "it is a soft mount: mount it hard" in ended.err
    assert executed == []
    maildefer("supervise", "--force", "run/queue")
    assert len(executed) == 1


# Sending


@pytest.mark.parametrize(("reply", "code"), [("450 later", 75), ("550 never", 1)])
def test_a_servers_refusal_is_the_exit_code(maildefer, reply, code):
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_refuse, args=(server, reply))
        thread.start()
        port = str(server.getsockname()[1])
        ended = maildefer(
            "send", "--port", port, "--sender", "a@b.example", "--to", "c@d.example", "--body", "x"
        )
        thread.join()
    assert ended.code == code
    assert reply.split()[1] in ended.err


def _refuse(server: socket.socket, reply: str) -> None:
    connection, _ = server.accept()
    with connection, connection.makefile("rw", newline="\r\n") as talk:
        talk.write("220 test\r\n")
        talk.flush()
        for line in talk:
            talk.write(f"{reply}\r\n" if line.upper().startswith("RCPT") else "250 ok\r\n")
            talk.flush()
            if line.upper().startswith("QUIT"):
                return


def test_nobody_listening_is_a_failure_with_a_hint(maildefer):
    ended = maildefer("send", "--port", "1", "--to", "c@d.example", "--body", "x")
    assert ended.code == 1
    assert "maildefer log" in ended.err
