from __future__ import annotations

import dataclasses
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.errors import AlreadyRunning, UnsafeRuntimeDirectory
from maildefer.host import pidfile_lock, runtime_dir
from maildefer.host.identity import HOST_ID_VARIABLE, start_time, this_host
from maildefer.host.runtime_dir import RuntimeRecord


@pytest.fixture(autouse=True)
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(runtime_dir.DIRECTORY_VARIABLE, str(tmp_path / "runtime"))
    monkeypatch.delenv(HOST_ID_VARIABLE, raising=False)
    return tmp_path / "runtime"


def record(pidfile: str = "/srv/run/supervise.pid", pid: int | None = None, **facts: object) -> RuntimeRecord:
    pid = pid or os.getpid()
    began = start_time(pid)
    assert began is not None
    mine = RuntimeRecord(pid=pid, start_time=began, kind="supervise", pidfile=pidfile, started=1.5)
    return dataclasses.replace(mine, **facts)  # type: ignore[arg-type]


def test_a_record_tells_what_runs_on_this_host() -> None:
    written = record(leases={"/srv/queue": "L-1-a"}, queues=("/srv/queue",), status_socket="/x/y.sock")
    runtime_dir.write_record(written)
    host = this_host()
    assert runtime_dir.records() == [
        dataclasses.replace(written, boot_id=host.boot_id, pid_namespace=host.pid_namespace)
    ]


def test_the_record_of_a_dead_or_reused_pid_is_removed_with_its_socket(base: Path) -> None:
    socket = base / "dead.sock"
    runtime_dir.write_record(record(start_time=1, status_socket=str(socket)))
    socket.touch()
    assert runtime_dir.records() == []
    assert not socket.exists()
    assert list(base.glob("*/*.json")) == []


def test_a_successors_record_outlives_its_predecessors_end() -> None:
    old = record(start_time=1)
    runtime_dir.write_record(record())
    runtime_dir.remove_record(old)
    assert len(runtime_dir.records()) == 1
    runtime_dir.remove_record(record())
    assert runtime_dir.records() == []


def test_damaged_and_foreign_files_are_passed_over() -> None:
    where = Path(runtime_dir.directory())
    for name, text in [
        ("a.json", ""),
        ("b.json", "[]"),
        ("c.json", '{"pid": 1}'),
        ("d.lock", ""),
        ("e.json", "{}"),
    ]:
        (where / name).write_text(text)
    runtime_dir.write_record(record())
    assert len(runtime_dir.records()) == 1


def test_another_hosts_record_in_the_same_directory_is_neither_trusted_nor_removed() -> None:
    runtime_dir.write_record(record(start_time=1))
    (path,) = Path(runtime_dir.directory()).glob("*.json")
    path.write_text(path.read_text().replace(this_host().boot_id, "another"))
    assert runtime_dir.records() == []
    assert path.exists()


def test_each_host_identity_has_a_directory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_dir.write_record(record())
    monkeypatch.setenv(HOST_ID_VARIABLE, "alpha")
    assert runtime_dir.records() == []


def test_pid_files_of_the_same_name_in_different_places_do_not_meet() -> None:
    paths = [
        runtime_dir.lock_path(path) for path in ("/a/x.pid", "/b/x.pid", "/a/../a/x.pid", "/a/" + "x" * 250)
    ]
    assert len(set(paths)) == 3
    assert all(len(os.path.basename(path)) < 100 for path in paths)


def test_the_directory_is_for_this_user_only(base: Path) -> None:
    assert stat.S_IMODE(os.stat(runtime_dir.directory()).st_mode) == 0o700
    assert stat.S_IMODE(base.stat().st_mode) == 0o700


def test_a_link_in_the_place_of_the_directory_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeRuntimeDirectory, match="not a directory"):
        runtime_dir.directory()
    base.unlink()
    base.mkdir(mode=0o700)
    (base / this_host().label).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeRuntimeDirectory, match="not a directory"):
        runtime_dir.directory()


def test_a_directory_that_others_can_write_to_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(UnsafeRuntimeDirectory, match="written by others"):
        runtime_dir.directory()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_another_users_directory_is_refused(base: Path) -> None:
    base.mkdir(mode=0o700)
    os.chown(base, 4711, 4711)
    with pytest.raises(UnsafeRuntimeDirectory, match="belongs to user 4711"):
        runtime_dir.directory()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize(
    ("owner", "mode", "counts"), [(0, 0o700, True), (4711, 0o700, False), (0, 0o777, False), (None, 0, False)]
)
def test_for_root_a_sessions_directory_counts_only_if_it_is_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int | None, mode: int, counts: bool
) -> None:
    session = tmp_path / "session"
    if owner is not None:
        session.mkdir()
        session.chmod(mode)
        os.chown(session, owner, owner)
    monkeypatch.delenv(runtime_dir.DIRECTORY_VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    monkeypatch.setattr(runtime_dir, "_own", lambda path: None)  # nothing is made in /run
    base = session / "maildefer" if counts else Path("/run/maildefer")
    assert runtime_dir.directory() == str(base / this_host().label)


HOLDER = """
import os, sys
from maildefer.host.pidfile_lock import acquire_lock
descriptor = acquire_lock(sys.argv[1])
os.execv(sys.executable, [sys.executable, "-c", "print('up', flush=True); input()"])
"""


def holder(pidfile: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, pidfile], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


@pytest.mark.lifecycle
def test_the_lock_is_kept_across_exec_and_the_refusal_names_the_process() -> None:
    with holder("/srv/x.pid") as process:
        with pytest.raises(AlreadyRunning, match=str(process.pid)) as caught:
            pidfile_lock.acquire_lock("/srv/x.pid")
        assert (caught.value.pid, caught.value.pidfile) == (process.pid, "/srv/x.pid")
        process.kill()
        process.wait()
        os.close(pidfile_lock.acquire_lock("/srv/x.pid"))


@pytest.mark.lifecycle
def test_a_fork_that_goes_on_can_say_so() -> None:
    descriptor = pidfile_lock.acquire_lock("/srv/x.pid")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        runtime_dir.name_holder(descriptor)
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    with pytest.raises(AlreadyRunning, match=str(child)):
        pidfile_lock.acquire_lock("/srv/x.pid")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for each in (descriptor, reader, writer):
        os.close(each)


@pytest.mark.lifecycle
def test_the_lock_is_kept_by_a_fork_whose_parent_has_ended() -> None:
    code = """
import os, sys
from maildefer.host.pidfile_lock import acquire_lock
acquire_lock(sys.argv[1])
if os.fork() == 0:
    print(os.getpid(), flush=True)
    input()
    os._exit(0)
"""
    command = [sys.executable, "-c", code, "/srv/x.pid"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.wait()  # an ordinary end, with all that the interpreter tidies up
        with pytest.raises(AlreadyRunning) as caught:
            pidfile_lock.acquire_lock("/srv/x.pid")
        assert caught.value.pid is None  # who said it was the holder is dead
        assert parent.stdin is not None
        parent.stdin.close()
        os.close(pidfile_lock.acquire_lock("/srv/x.pid"))


def test_the_lock_is_free_again_when_its_descriptor_is_closed() -> None:
    descriptor = pidfile_lock.acquire_lock("/srv/y.pid")
    assert os.get_inheritable(descriptor)
    with pytest.raises(AlreadyRunning, match=str(os.getpid())):
        pidfile_lock.acquire_lock("/srv/y.pid")
    os.close(descriptor)
    os.close(pidfile_lock.acquire_lock("/srv/y.pid"))


def test_locks_of_two_host_identities_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pidfile_lock.acquire_lock("/srv/z.pid")
    monkeypatch.setenv(HOST_ID_VARIABLE, "beta")
    os.close(pidfile_lock.acquire_lock("/srv/z.pid"))
    os.close(first)
