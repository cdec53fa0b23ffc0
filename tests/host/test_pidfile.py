from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from maildefer.errors import NotRunning, PidFileUnusable
from maildefer.host import pidfile
from maildefer.host.identity import HostIdentity, this_host
from maildefer.host.pidfile import PidFile

HERE = this_host()
ELSEWHERE = HostIdentity(label="other-abcdef", boot_id="b" * 36, pid_namespace=HERE.pid_namespace)


def mine() -> PidFile:
    return pidfile.for_process(os.getpid(), HERE, kind="supervise", lease="L-1-a", queues=("/srv/queue",))


def ended_pid() -> int:
    return int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = str(tmp_path / "run" / "supervise.pid")
    written = dataclasses.replace(mine(), queues=("/srv/queue", "/srv/p\udcf6sts \n x"))
    pidfile.write(path, written)
    assert pidfile.read(path) == written
    assert os.listdir(tmp_path / "run") == ["supervise.pid"]


def test_the_first_line_is_the_bare_pid_for_everybodys_scripts(tmp_path: Path) -> None:
    pidfile.write(str(tmp_path / "x.pid"), mine())
    assert (tmp_path / "x.pid").read_text().splitlines()[0] == str(os.getpid())


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.pid").mkdir()
    with pytest.raises(OSError, match="directory"):
        pidfile.write(str(tmp_path / "x.pid"), mine())
    assert os.listdir(tmp_path) == ["x.pid"]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"hello\n", "does not begin with a pid"),
        (b"\xff\xfe\x00", "does not begin with a pid"),
        (b"0\n", "no process can have"),
        (b"-1\n", "does not begin with a pid"),
        (b"99999999999999999999\n", "no process can have"),
        (b"4194305\n", "no process can have"),
        ("١٢\n".encode(), "does not begin with a pid"),
        (b"1_0\n", "does not begin with a pid"),
    ],
)
def test_a_pid_file_without_a_pid_is_refused_by_name(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "x.pid").write_bytes(data)
    with pytest.raises(PidFileUnusable, match=what) as caught:
        pidfile.read(str(tmp_path / "x.pid"))
    assert caught.value.path == str(tmp_path / "x.pid")


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"{}",
        b"null",
        b"[1]",
        b"{broken",
        b"\xff",
        b"[" * 100_000,
        b'{"pid": 1}',
        b'{"pid": 4711, "queues": 3}',
    ],
)
def test_another_programs_pid_file_gives_its_pid_and_no_more(tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "x.pid").write_bytes(b" 4711 \n" + rest)
    found = pidfile.read(str(tmp_path / "x.pid"))
    assert found == PidFile(pid=4711)
    assert found.foreign


def test_a_pid_file_that_is_not_there_means_not_running(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no pid file"):
        pidfile.read(str(tmp_path / "x.pid"))


def test_a_fifo_or_a_directory_of_that_name_does_not_hang_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pid")
    (tmp_path / "directory.pid").mkdir()
    for name in ("fifo.pid", "directory.pid"):
        with pytest.raises(PidFileUnusable):
            pidfile.read(str(tmp_path / name))


def test_only_the_very_process_that_was_written_down_is_running() -> None:
    assert pidfile.verify(mine(), HERE) == "running"
    reused = dataclasses.replace(mine(), start_time=mine().start_time - 1)
    assert pidfile.verify(reused, HERE) == "stale"
    assert pidfile.verify(dataclasses.replace(mine(), pid=ended_pid()), HERE) == "stale"


def test_another_hosts_pid_is_never_looked_up_here() -> None:
    assert pidfile.verify(mine(), ELSEWHERE) == "other-host"
    container = dataclasses.replace(HERE, label="box-123456", pid_namespace="pid:[1]")
    assert pidfile.verify(mine(), container) == "other-host"


def test_a_file_from_before_this_hosts_boot_may_be_a_clones() -> None:
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 3600
    old = dataclasses.replace(mine(), boot_id="f" * 36, started=before)
    assert pidfile.verify(old, HERE) == "unproven"


def test_a_clone_of_this_host_is_another_host() -> None:
    far_future = time.time() + 3600  # surely after our boot
    assert (
        pidfile.verify(dataclasses.replace(mine(), boot_id="f" * 36, started=far_future), HERE)
        == "other-host"
    )


def test_a_bare_pid_of_a_live_process_proves_nothing() -> None:
    assert pidfile.verify(PidFile(pid=os.getpid()), HERE) == "unverified"
    assert pidfile.verify(PidFile(pid=ended_pid()), HERE) == "stale"


def test_the_default_name_gives_way_to_another_hosts_file(tmp_path: Path) -> None:
    default = str(tmp_path / "smtp.pid")
    assert pidfile.choose_path(default, HERE) == default
    pidfile.write(default, mine())
    assert pidfile.choose_path(default, HERE) == default
    assert pidfile.choose_path(default, ELSEWHERE) == str(tmp_path / "smtp-other-abcdef.pid")


def test_a_clone_of_the_same_label_gets_a_third_name(tmp_path: Path) -> None:
    label = ELSEWHERE.label
    default = str(tmp_path / f"supervise-{label}.pid")
    clone = dataclasses.replace(ELSEWHERE, boot_id="c" * 36)
    pidfile.write(
        default, dataclasses.replace(mine(), host=label, boot_id="b" * 36, started=time.time() + 3600)
    )
    assert pidfile.choose_path(default, clone) == str(tmp_path / f"supervise-{label}-cccccccc.pid")


@pytest.mark.parametrize("lives", [True, False])
def test_a_file_of_this_hosts_name_from_before_its_boot_is_taken_over_unless_a_clone_lives(
    tmp_path: Path, lives: bool
) -> None:
    label = ELSEWHERE.label
    default = str(tmp_path / f"supervise-{label}.pid")
    here = dataclasses.replace(ELSEWHERE, boot_id="c" * 36)
    pidfile.write(default, dataclasses.replace(mine(), host=label, boot_id="b" * 36, started=1.0))
    chosen = str(tmp_path / f"supervise-{label}-cccccccc.pid") if lives else default
    assert pidfile.choose_path(default, here, lambda found: lives) == chosen


def test_a_broken_file_of_the_default_name_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "smtp.pid").write_bytes(b"")
    assert pidfile.choose_path(str(tmp_path / "smtp.pid"), HERE) == str(tmp_path / "smtp.pid")


def test_a_pid_file_is_removed_only_while_it_means_that_process(tmp_path: Path) -> None:
    path = str(tmp_path / "x.pid")
    pidfile.write(path, mine())
    assert not pidfile.remove(path, dataclasses.replace(mine(), start_time=1))
    assert os.path.exists(path)
    assert pidfile.remove(path, dataclasses.replace(mine(), lease="another by now"))
    assert not os.path.exists(path)
    assert not pidfile.remove(path, mine())
