from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from maildefer.control import local_processes as control
from maildefer.control.requests import Verb
from maildefer.errors import MaildeferError, NotRunning
from maildefer.host import pidfile, runtime_dir
from maildefer.host import status_socket as statussocket
from maildefer.host.bounded_call import bounded
from maildefer.host.identity import start_time, this_host
from maildefer.host.runtime_dir import RuntimeRecord
from maildefer.maildir.layout import create_queue
from tests.support.pid_files import Spawn, write

pytestmark = [pytest.mark.lifecycle, pytest.mark.usefixtures("own_runtime_directory")]


def record(path: Path, pid: int, status_socket: str | None = None) -> RuntimeRecord:
    began = start_time(pid)
    assert began is not None
    made = RuntimeRecord(
        pid=pid,
        start_time=began,
        kind="supervise",
        pidfile=str(path),
        started=1.0,
        status_socket=status_socket,
    )
    runtime_dir.write_record(made)
    return made


def test_every_pid_file_of_a_directory_is_found_with_what_stands_behind_it(run: Path, spawn: Spawn) -> None:
    process = spawn()
    write(run / "running.pid", process.pid)
    write(run / "stale.pid", process.pid, start_time=1)
    write(run / "elsewhere.pid", process.pid, host="b-123456", boot_id="id:b")
    (run / "empty.pid").touch()
    (run / "bare.pid").write_text(f"{process.pid}\n")
    (run / "queue").mkdir()
    found = control.find_processes(str(run))
    assert [(os.path.basename(item.path), item.verdict) for item in found] == [
        ("bare.pid", "unverified"),
        ("elsewhere.pid", "other-host"),
        ("empty.pid", "unusable"),
        ("running.pid", "running"),
        ("stale.pid", "stale"),
    ]


def test_who_wrote_its_status_after_this_host_was_booted_is_not_this_host(tmp_path: Path) -> None:
    layout = create_queue(str(tmp_path / "queue"))
    facts = pidfile.for_process(
        os.getpid(), this_host(), kind="supervise", lease="web-1-7-ab", queues=(layout.path,)
    )
    assert not control.is_a_clones(facts), "it has none"
    status = Path(layout.status, "web-1-7-ab.json")
    status.touch()
    assert control.is_a_clones(facts)
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 60
    os.utime(status, (before, before))
    assert not control.is_a_clones(facts)


def test_a_process_whose_pid_file_is_not_written_yet_is_found_by_its_record(run: Path, spawn: Spawn) -> None:
    process = spawn()
    record(run / "supervise.pid", process.pid)
    record(run.parent / "elsewhere.pid", process.pid)
    (found,) = control.find_processes(str(run))
    assert (found.path, found.verdict, found.process.pid) == (
        str(run / "supervise.pid"),
        "running",
        process.pid,
    )
    assert control.find_process(str(run / "supervise.pid")) == found


def test_a_record_counts_more_than_an_old_pid_file_of_the_same_name(run: Path, spawn: Spawn) -> None:
    process = spawn()
    write(run / "supervise.pid", os.getpid(), start_time=1)
    record(run / "supervise.pid", process.pid)
    (found,) = control.find_processes(str(run))
    assert found.process.pid == process.pid


@pytest.mark.usefixtures("looks_are_short")
def test_a_mount_that_hangs_hides_nothing_that_runs_here(
    run: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = spawn()
    record(run / "supervise.pid", process.pid)
    hang = os.listdir

    def listdir(path: str) -> list[str]:
        while path == str(run):
            signal.pause()
        return hang(path)

    monkeypatch.setattr(os, "listdir", listdir)
    monkeypatch.setattr(bounded, "__defaults__", (0.2,))
    directory, supervisor = control.find_processes(str(run))
    assert (directory.verdict, directory.path) == ("no-answer", str(run))
    assert "did not answer within 0.2 s" in directory.problem
    assert (supervisor.verdict, supervisor.process.pid) == ("running", process.pid)


def test_a_mistyped_directory_or_pid_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="no directory"):
        control.find_processes(str(tmp_path / "rnu"))
    with pytest.raises(NotRunning, match="no pid file"):
        control.find_process(str(tmp_path / "x.pid"))


@pytest.mark.parametrize(
    ("verb", "name"), [("pause", "SIGTSTP"), ("resume", "SIGCONT"), ("reload", "SIGHUP")]
)
def test_a_verb_reaches_the_process_as_its_signal(run: Path, spawn: Spawn, verb: Verb, name: str) -> None:
    process = spawn(name)
    write(run / "x.pid", process.pid)
    said = control.signal_process(control.find_process(str(run / "x.pid")), verb)
    assert said == f"sent {name} to process {process.pid} of {run}/x.pid"
    assert process.stdout is not None
    assert process.stdout.readline() == f"{name}\n".encode()


def test_a_process_without_a_handler_is_neither_frozen_nor_ended(run: Path, spawn: Spawn) -> None:
    process = spawn()
    write(run / "x.pid", process.pid)
    verbs: tuple[Verb, Verb] = ("pause", "reload")
    for verb in verbs:
        with pytest.raises(MaildeferError, match=f"does not take `{verb}`"):
            control.signal_process(control.find_process(str(run / "x.pid")), verb)
    assert process.poll() is None


def test_a_stranger_with_a_reused_pid_is_not_signalled(run: Path, spawn: Spawn) -> None:
    process = spawn("SIGHUP")
    content = write(run / "x.pid", process.pid, start_time=1)
    with pytest.raises(NotRunning, match="stale"):
        control.signal_process(control.find_process(str(run / "x.pid")), "reload")
    late = control.PidFileStatus(path="x.pid", verdict="running", pidfile=content)  # it ended after the look
    with pytest.raises(NotRunning, match="just ended"):
        control.signal_process(late, "reload")


def test_the_status_of_each_process_is_asked_and_a_hung_one_is_named(run: Path, spawn: Spawn) -> None:
    answering, hung, mute = spawn(), spawn(), spawn()
    paths = [runtime_dir.socket_path(f"{run}/{name}.pid") for name in "ab"]
    record(run / "a.pid", answering.pid, paths[0])
    record(run / "b.pid", hung.pid, paths[1])
    record(run / "c.pid", mute.pid)
    with statussocket.listen_at(paths[0]) as first, statussocket.listen_at(paths[1]):
        first.setblocking(True)
        thread = threading.Thread(
            target=lambda: statussocket.answer_status(first.accept()[0], {"workers": 8})
        )
        thread.start()
        asked = [
            control.ask_process(one, 0.3 if one.pid == hung.pid else 60) for one in runtime_dir.records()
        ]
        statuses = {item.record.pid: item for item in asked}
        thread.join()
    assert statuses[answering.pid].status == {"workers": 8}
    assert (statuses[hung.pid].status, "no answer within" in statuses[hung.pid].problem) == (None, True)
    assert statuses[mute.pid].problem == "it answers no questions"
