from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.host import identity


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(identity.HOST_ID_VARIABLE, raising=False)


@pytest.mark.parametrize("name", ["web1", "WEB1.example.com", "x" * 200, "Bücher", "", "..", "a b\n/c"])
def test_a_label_is_short_and_safe_for_file_names(name: str) -> None:
    label = identity.label(name, name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?-[0-9a-f]{6}", label)


def test_hosts_of_the_same_name_have_different_labels_if_anything_else_differs() -> None:
    assert identity.label("web", "web\nmachine 1") != identity.label("web", "web\nmachine 2")


def test_this_host_is_known_by_its_boot_and_pid_namespace() -> None:
    host = identity.this_host()
    assert host.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert host.pid_namespace == os.readlink("/proc/self/ns/pid")
    assert host == identity.this_host()


def test_the_override_stands_for_name_and_boot_so_that_no_pids_are_shared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(identity.HOST_ID_VARIABLE, "alpha")
    alpha = identity.this_host()
    monkeypatch.setenv(identity.HOST_ID_VARIABLE, "beta")
    beta = identity.this_host()
    assert alpha.label[:6] == "alpha-"
    assert alpha.label != beta.label
    assert not alpha.shares_pids_with(beta.boot_id, beta.pid_namespace)
    assert alpha.shares_pids_with(alpha.boot_id, alpha.pid_namespace)


def test_one_override_on_two_machines_does_not_make_them_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a variable comes with an image. Pid namespaces of machines often have the same number."""
    monkeypatch.setenv(identity.HOST_ID_VARIABLE, "web")
    first = identity.this_host()
    monkeypatch.setattr(identity, "_line", lambda path: "another boot id")
    second = identity.this_host()
    assert first.pid_namespace == second.pid_namespace
    assert not first.shares_pids_with(second.boot_id, second.pid_namespace)
    assert first.is_namesake(second.label, second.boot_id, second.pid_namespace)
    assert not first.is_namesake(first.label, first.boot_id, first.pid_namespace)
    assert not first.is_namesake("other-123456", second.boot_id, second.pid_namespace)


def test_the_same_boot_in_another_pid_namespace_is_another_host() -> None:
    host = identity.this_host()
    assert not host.shares_pids_with(host.boot_id, "pid:[1]")
    assert not host.shares_pids_with("", host.pid_namespace)


def test_a_running_process_is_alive_only_under_its_own_start_time() -> None:
    began = identity.start_time(os.getpid())
    assert began is not None
    assert identity.is_alive(os.getpid(), began)
    assert not identity.is_alive(os.getpid(), began + 1)


@pytest.mark.parametrize("comm", [b"a) S 1 1", b"(((", b") R (", b"  x  "])
def test_a_process_may_call_itself_anything(comm: bytes) -> None:
    code = f"import sys; open('/proc/self/comm', 'wb').write({comm!r}); print('named', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        before = identity.start_time(child.pid)
        assert child.stdout is not None
        assert child.stdout.readline() == b"named\n"
        began = identity.start_time(child.pid)
        assert began == before
        own = identity.start_time(os.getpid())
        assert own is not None
        assert began is not None
        assert own <= began < own + 100_000_000
        assert child.stdin is not None
        child.stdin.close()


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = identity.start_time(child.pid)
    assert began is not None
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
    assert identity.start_time(child.pid) is None
    assert not identity.is_alive(child.pid, began)
    child.communicate()
    assert identity.start_time(child.pid) is None
    assert not identity.pid_exists(child.pid)


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**12])
def test_a_pid_that_no_process_can_have_is_dead(pid: int) -> None:
    assert identity.start_time(pid) is None
    assert not identity.is_alive(pid, 1)


def test_a_process_that_proc_hides_counts_as_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(identity, "stat_fields", lambda pid: None)
    monkeypatch.setattr(os, "kill", refuse)
    assert identity.is_alive(12345, 1)
