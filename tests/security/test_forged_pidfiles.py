"""Pid files that others have written: root's commands neither signal what they name nor go where they lead."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.control import local_processes, reload_verdicts, stop
from maildefer.errors import NotRunning
from maildefer.host import pidfile
from maildefer.host.identity import this_host
from maildefer.maildir.layout import Layout, create_queue
from tests.support.other_users import as_user

pytestmark = [
    pytest.mark.lifecycle,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, and a user who is not"),
]
MEMBER = 61_031  # nobody's
PLAIN = "import sys; print('up', flush=True); sys.stdin.read()"
TITLE = "from maildefer.host.linux.process_title import set_title; set_title('supervisor x')"
TITLED = f"{TITLE}; import os; USER; {PLAIN}"

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project's `run`, to which a member may write."""
    place = Path(tempfile.mkdtemp(prefix="maildefer-", dir="/tmp"))
    place.chmod(0o755)
    (place / "run").mkdir()
    os.chown(place / "run", MEMBER, MEMBER)
    monkeypatch.setenv("MAILDEFER_RUNTIME_DIR", f"{place}/runtime")
    monkeypatch.chdir(place)
    yield place / "run"
    shutil.rmtree(place)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    running: list[subprocess.Popen[bytes]] = []

    def _spawn(code: str, user: int = 0) -> subprocess.Popen[bytes]:
        code = code.replace("USER", f"os.setresuid({user}, {user}, {user})")
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/"
        )
        assert process.stdout is not None
        running.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield _spawn
    for process in running:
        process.kill()
        process.communicate()


def facts(pid: int, **more: object) -> pidfile.PidFile:
    """What anybody can read in /proc about a process of this host."""
    content = pidfile.for_process(pid, this_host(), kind="supervise")
    return dataclasses.replace(content, **more)  # type: ignore[arg-type]


def forge(path: Path, content: pidfile.PidFile, user: int = MEMBER) -> None:
    as_user(user, user, lambda: pidfile.write(str(path), content))


def maildefer(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maildefer", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("code", [PLAIN, TITLED])
def test_a_forged_pid_file_ends_no_process_of_roots(run: Path, spawn: Spawn, code: str) -> None:
    process = spawn(code)
    forge(run / "x.pid", facts(process.pid))
    for arguments in (("stop", "--all", "run"), ("stop", "--pid", "run/x.pid")):
        ended = maildefer(*arguments)
        assert (ended.returncode, process.poll()) == (1, None), ended
        assert "unverified" in ended.stdout
        assert f"it does not run as user {MEMBER}, whose the file is" in ended.stdout
    refused = maildefer("reload", "--no-wait", "--pid", "run/x.pid")
    assert (refused.returncode, process.poll()) == (1, None), refused


def test_a_process_that_is_no_maildefer_is_not_signalled_whosever_the_file_is(
    run: Path, spawn: Spawn
) -> None:
    process = spawn(PLAIN)
    forge(run / "x.pid", facts(process.pid), user=0)
    ended = maildefer("stop", "--all", "run")
    assert (ended.returncode, process.poll()) == (1, None), ended
    assert "it is no maildefer" in ended.stdout


def test_root_stops_a_maildefer_of_the_user_whose_the_pid_file_is(run: Path, spawn: Spawn) -> None:
    process = spawn(TITLED, MEMBER)
    forge(run / "x.pid", facts(process.pid))
    ended = maildefer("stop", "--all", "run")
    assert ended.returncode == 0, ended
    assert process.wait(60) < 0


def test_no_request_is_filed_where_a_forged_pid_file_leads(run: Path) -> None:
    queue = create_queue(str(run.parent / "elsewhere"))
    Path(queue.leases, "h-1-abcd.3").touch()
    away = dataclasses.replace(facts(os.getpid(), host="h", boot_id="another"), lease="h-1-abcd")
    forge(run / "x.pid", dataclasses.replace(away, queues=(queue.path,)))
    ended = maildefer("stop", "--all", "run", "--timeout", "1")
    assert ended.returncode == 1, ended
    assert "its queues are not believed" in ended.stdout
    assert os.listdir(queue.requests) == ["done"]


def test_status_does_not_look_where_a_forged_pid_file_leads_and_says_so(run: Path) -> None:
    queue: Layout = create_queue(str(run.parent / "elsewhere"))
    os.utime(queue.leases, (1, 1))
    forge(run / "x.pid", facts(os.getpid(), host="h", boot_id="another", queues=(queue.path,)))
    ended = maildefer("status")
    assert ended.returncode == 1, ended
    assert "its queues are not believed" in ended.stderr
    assert queue.path not in ended.stdout
    assert os.stat(queue.leases).st_mtime == 1
    own = maildefer("status", queue.path)
    assert queue.path in own.stdout, "named by who asks"


@pytest.mark.parametrize(
    "more", [{"lease": "../../x"}, {"lease": ""}, {"queues": ("run/queue",)}, {"queues": ("/a\0b",)}]
)
def test_a_pid_file_that_leads_out_of_its_queue_gives_its_pid_and_no_more(
    run: Path, more: dict[str, object]
) -> None:
    forge(run / "x.pid", facts(os.getpid(), **more))
    assert pidfile.read(f"{run}/x.pid") == pidfile.PidFile(pid=os.getpid())


FIRST_LINES = [
    "-1",
    "0",
    "{}",
    "[]",
    "True",
    "null",
    "1e+308",
    f"{10**30}",
    "",
    "\0",
    "-",
    "9" * 5000,
    "1 2",
    "\u0661",
]


@pytest.mark.parametrize("first", FIRST_LINES, ids=lambda line: repr(line[:8]))
def test_no_first_line_of_a_pid_file_ends_a_command_otherwise_than_by_what_it_says(
    run: Path, first: str
) -> None:
    path = run / "x.pid"
    path.write_text(f"{first}\n")
    for found in (local_processes.find_process(str(path)), *local_processes.find_processes(str(run))):
        with pytest.raises(NotRunning, match=str(path)):
            list(reload_verdicts.reload_here([found], 0.0))
        with pytest.raises(NotRunning, match=str(path)):
            local_processes.signal_process(found, "reload")
        assert [step.what for step in stop.stop([found])] == ["unusable"]


@pytest.mark.parametrize("first", ["-1", "{}"])
def test_a_reload_says_which_pid_file_names_no_process(run: Path, first: str) -> None:
    default = run / f"supervise-{this_host().label}.pid"
    for file, options in ((default, ()), (run / "x.pid", ("--pid", "run/x.pid"))):
        file.write_text(f"{first}\n")
        ended = maildefer("reload", *options)
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False), ended
        assert str(file) in ended.stderr
        file.unlink()
