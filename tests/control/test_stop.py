from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.control import local_processes as control
from maildefer.control import stop as stop_module
from maildefer.control import stop_requests
from maildefer.control.requests import live_names
from maildefer.control.stop import stop
from maildefer.control.stop_steps import StopStep
from maildefer.host import pidfile, runtime_dir
from maildefer.host.bounded_call import bounded
from maildefer.host.identity import HostIdentity, this_host
from maildefer.maildir.layout import Format, Layout, create_queue
from tests.support.pid_files import Spawn, write

pytestmark = [pytest.mark.lifecycle, pytest.mark.usefixtures("own_runtime_directory")]

OTHER = HostIdentity(label="b-123456", boot_id="id:b", pid_namespace="pid:[2]")
LEASE = "b-123456-99-aa"


@pytest.fixture
def queue(run: Path) -> Layout:
    return create_queue(str(run / "queue"), format=Format(beat_seconds=0.05, ttl_seconds=0.5))


def elsewhere(run: Path, queue: Layout | None, lease: str | None = LEASE) -> Path:
    """The pid file, and the lease, of a supervisor on another host."""
    path = run / f"supervise-{OTHER.label}.pid"
    write(
        path, 99, start_time=5, host=OTHER.label, boot_id=OTHER.boot_id, pid_namespace=OTHER.pid_namespace,
        lease=lease, queues=(queue.path,) if queue else (),
    )  # fmt: skip
    if queue and lease:
        Path(queue.leases, f"{lease}.3").touch()
    return path


def stop_all(run: Path, timeout_seconds: float = 10.0, **how: bool) -> list[StopStep]:
    return list(stop(control.find_processes(str(run)), timeout_seconds=timeout_seconds, **how))


def whats(steps: list[StopStep]) -> list[str]:
    return [step.what for step in steps]


def test_this_hosts_processes_are_terminated_and_awaited_together(run: Path, spawn: Spawn) -> None:
    processes = [spawn(), spawn()]
    for number, process in enumerate(processes):
        write(run / f"{number}.pid", process.pid)
    steps = stop_all(run)
    assert whats(steps) == ["signalled", "signalled", "stopped", "stopped"]
    assert [process.wait() for process in processes] == [-signal.SIGTERM, -signal.SIGTERM]
    assert list(run.iterdir()) == []
    assert not any(step.failed for step in steps)


def test_a_process_that_somebody_has_stopped_hears_of_it_too(run: Path, spawn: Spawn) -> None:
    process = spawn()
    os.kill(process.pid, signal.SIGSTOP)
    write(run / "x.pid", process.pid)
    assert whats(stop_all(run)) == ["signalled", "stopped"]


def test_a_process_that_would_not_stop_is_named_and_left(run: Path, spawn: Spawn) -> None:
    process = spawn("stubborn")
    write(run / "x.pid", process.pid)
    steps = stop_all(run, 0.2)
    assert whats(steps) == ["signalled", "would-not-stop"]
    assert steps[-1].failed
    assert "--force" in steps[-1].text
    assert process.poll() is None
    assert (run / "x.pid").exists()


def test_before_a_process_is_killed_it_is_asked_to_end_at_once_so_that_it_can_release_its_messages(
    run: Path, spawn: Spawn
) -> None:
    process = spawn("draining")
    write(run / "x.pid", process.pid)
    assert whats(stop_all(run, 0.2, kill=True)) == ["signalled", "stopped"]
    assert process.wait() == -signal.SIGQUIT


def test_a_process_that_would_not_stop_is_killed_if_that_is_asked_for(
    run: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_module, "_AFTER_QUIT_SECONDS", 0.2)
    process = spawn("stubborn")
    write(run / "x.pid", process.pid)
    steps = stop_all(run, 0.2, kill=True)
    assert whats(steps) == ["signalled", "killed", "stopped"]
    assert process.wait() == -signal.SIGKILL
    assert not (run / "x.pid").exists()


def test_a_stale_pid_file_is_removed_and_the_pids_new_owner_left_alone(run: Path, spawn: Spawn) -> None:
    stranger = spawn()
    write(run / "x.pid", stranger.pid, start_time=1)
    (step,) = stop_all(run)
    assert (step.what, step.failed) == ("removed", False)
    assert stranger.poll() is None
    assert not (run / "x.pid").exists()


def test_a_process_that_ends_between_the_look_and_the_signal_is_not_missed_or_mistaken(
    run: Path, spawn: Spawn
) -> None:
    process = spawn()
    write(run / "x.pid", process.pid)
    found = control.find_processes(str(run))
    process.kill()
    process.wait()
    assert whats(list(stop(found))) == ["removed"]


def test_a_bare_pid_is_neither_signalled_nor_removed(run: Path, spawn: Spawn) -> None:
    process = spawn()
    (run / "alive.pid").write_text(f"{process.pid}\n")
    ended = int(subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"]))
    (run / "dead.pid").write_text(f"{ended}\n")
    (run / "empty.pid").touch()
    steps = stop_all(run)
    assert whats(steps) == ["unverified", "unverified", "unusable"]
    assert all(step.failed for step in steps)
    assert process.poll() is None
    assert len(list(run.iterdir())) == 3


def test_another_host_is_asked_through_the_mount_and_its_leaving_awaited(run: Path, queue: Layout) -> None:
    path = elsewhere(run, queue)
    steps = stop(control.find_processes(str(run)), timeout_seconds=10)
    assert next(steps).what == "requested"
    os.rename(f"{queue.requests}/{LEASE}.stop", f"{queue.requests_done}/{LEASE}.stop")  # its keeper
    os.unlink(f"{queue.leases}/{LEASE}.3")
    path.unlink()
    (step,) = steps
    assert (step.what, step.host, step.pid) == ("stopped", OTHER.label, 99)


def test_another_host_that_joined_anew_is_asked_again_under_its_new_lease(run: Path, queue: Layout) -> None:
    elsewhere(run, queue)
    steps = stop(control.find_processes(str(run)), timeout_seconds=10)
    assert next(steps).what == "requested"
    os.rename(f"{queue.leases}/{LEASE}.3", f"{queue.fenced}/{LEASE}.3")
    path = elsewhere(run, queue, "b-123456-99-bb")
    assert next(steps).what == "requested"
    assert sorted(os.listdir(queue.requests)) == ["b-123456-99-bb.stop", "done"]
    path.unlink()
    assert whats(list(steps)) == ["stopped"]


def test_another_host_that_died_is_told_by_its_lease_and_its_pid_file_removed(
    run: Path, queue: Layout
) -> None:
    path = elsewhere(run, queue)
    os.unlink(f"{queue.leases}/{LEASE}.3")
    steps = stop_all(run)
    assert whats(steps) == ["requested", "stopped"]
    assert "no lease" in steps[-1].text
    assert not path.exists()
    assert os.listdir(queue.requests) == ["done"]


def test_another_host_that_does_not_stop_is_named(run: Path, queue: Layout) -> None:
    path = elsewhere(run, queue)
    steps = stop_all(run, 0.3)
    assert whats(steps) == ["requested", "would-not-stop"]
    assert steps[-1].failed
    assert path.exists()
    assert (Path(queue.requests) / f"{LEASE}.stop").exists()


def test_another_host_that_has_not_beaten_either_may_be_down_for_good(
    run: Path, queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with it all who would fence it, as after a power failure."""
    elsewhere(run, queue)
    found = (stop_all(run, seconds)[-1].text for seconds in (2.0, 20.0))  # a busy machine looks seldom
    assert any("remove the pid file" in text for text in found)
    assert "remove the pid file" not in stop_all(run, 0.1)[-1].text, "too soon to tell"
    with monkeypatch.context() as stalled:  # for as long as it waits, so that it looks once
        stalled.setattr(stop_module, "_GLANCE_SECONDS", 0.5)
        assert "remove the pid file" not in stop_all(run, 0.5)[-1].text, "one look shows no silence"
    monkeypatch.setattr(stop_requests, "live_names", lambda _: {LEASE: time.monotonic_ns()})
    assert "remove the pid file" not in stop_all(run, 0.5)[-1].text, "it beats, and is only slow"


def test_another_hosts_process_without_a_keeper_is_named_as_a_failure(run: Path) -> None:
    path = elsewhere(run, None, None)
    (step,) = stop_all(run)
    assert (step.what, step.failed) == ("no-keeper", True)
    assert OTHER.label in step.text
    assert path.exists()


def test_other_hosts_are_left_alone_when_only_this_one_is_meant(
    run: Path, queue: Layout, spawn: Spawn
) -> None:
    process = spawn()
    elsewhere(run, queue)
    write(run / "a.pid", process.pid)
    steps = stop_all(run, this_host_only=True)
    assert whats(steps) == ["signalled", "skipped", "stopped"]
    assert not any(step.failed for step in steps)
    assert os.listdir(queue.requests) == ["done"]


def test_a_queue_that_is_gone_cannot_carry_the_request_and_proves_nobody_dead(
    run: Path, queue: Layout
) -> None:
    path = elsewhere(run, queue)
    os.rename(queue.path, queue.path + ".away")
    (step,) = stop_all(run, 0.6)
    assert (step.what, step.failed) == ("no-answer", True)
    assert queue.path in step.text
    assert path.exists()


def test_another_host_that_could_not_be_asked_at_first_is_asked_until_the_timeout(
    run: Path, queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_requests, "_FAILED_SECONDS", 0.1)
    path = elsewhere(run, queue)
    os.rename(queue.path, queue.path + ".away")
    steps = stop(
        told_when(control.find_processes(str(run)), lambda: os.rename(queue.path + ".away", queue.path))
    )
    assert next(steps).what == "requested"
    path.unlink()
    assert whats(list(steps)) == ["stopped"]


def told_when(
    found: list[control.PidFileStatus], then: Callable[[], object]
) -> Iterator[control.PidFileStatus]:
    """And something happens when all of them have been asked for the first time."""
    yield from found
    then()


def test_a_request_that_is_lost_is_filed_again(
    run: Path, queue: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = elsewhere(run, queue)
    request, look = Path(queue.requests, f"{LEASE}.stop"), live_names

    def obeyed(queue_path: str) -> dict[str, int]:
        if request.exists():
            path.unlink(missing_ok=True)
        return look(queue_path)

    steps = stop(control.find_processes(str(run)), timeout_seconds=60)
    assert next(steps).what == "requested"
    request.unlink()
    monkeypatch.setattr(stop_requests, "live_names", obeyed)
    assert whats(list(steps)) == ["stopped"], "it was filed again, and told of once"


def unproven(run: Path, queue: Layout | None, lease: str | None = LEASE) -> Path:
    """The pid file of this host before its boot, or of a clone of it which was started before that."""
    path = elsewhere(run, queue, lease)
    before = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 3600
    was = pidfile.read(str(path))
    pidfile.write(str(path), dataclasses.replace(was, host=this_host().label, started=before))
    return path


def test_a_living_pool_of_a_cloned_machine_is_asked_and_not_taken_for_ended(run: Path, queue: Layout) -> None:
    path = unproven(run, queue)
    steps = stop_all(run, 0.6)
    assert whats(steps) == ["requested", "would-not-stop"]
    assert steps[-1].failed
    assert "clone" in steps[-1].text
    assert path.exists()
    assert os.path.exists(f"{queue.requests}/{LEASE}.stop")


def test_what_was_this_hosts_before_its_boot_and_holds_no_lease_is_tidied_away(
    run: Path, queue: Layout
) -> None:
    path = unproven(run, queue)
    os.unlink(f"{queue.leases}/{LEASE}.3")
    steps = stop_all(run)
    assert whats(steps) == ["requested", "stopped"]
    assert not path.exists()


def test_what_may_be_a_clones_and_names_no_lease_is_left_and_said(run: Path) -> None:
    path = unproven(run, None, None)
    (step,) = stop_all(run)
    assert (step.what, step.failed) == ("unverified", True)
    assert "clone" in step.text
    assert path.exists()


def test_what_may_be_a_clones_is_left_alone_when_only_this_host_is_meant(run: Path, queue: Layout) -> None:
    path = unproven(run, queue)
    assert whats(stop_all(run, this_host_only=True)) == ["skipped"]
    assert path.exists()


@pytest.mark.usefixtures("looks_are_short")
def test_a_mount_that_hangs_does_not_keep_this_hosts_processes_from_being_stopped(
    run: Path, spawn: Spawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*arguments: object) -> None:
        while True:
            signal.pause()

    process = spawn()
    began = pidfile.for_process(process.pid, this_host(), kind="supervise").start_time
    runtime_dir.write_record(
        runtime_dir.RuntimeRecord(
            pid=process.pid, start_time=began, kind="supervise", pidfile=str(run / "x.pid"), started=1.0
        )
    )
    monkeypatch.setattr(control, "_read_directory", hang)
    monkeypatch.setattr(pidfile, "remove", hang)
    monkeypatch.setattr(bounded, "__defaults__", (0.1,))
    steps = stop_all(run)
    assert whats(steps) == ["no-answer", "signalled", "stopped"]
    assert process.wait() == -signal.SIGTERM
