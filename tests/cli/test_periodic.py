"""`maildefer periodic`: what the project's tasks and the names of files say; nothing runs here."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from maildefer.cli.commands import periodic
from maildefer.handling.periodic.schedule import Schedule
from maildefer.handling.periodic.table import PeriodicTask
from maildefer.handling.tasks.call import call_in
from maildefer.maildir.layout import Layout, create_queue
from maildefer.maildir.upkeep.ticks import Tick, Ticks
from tests.cli.conftest import Maildefer
from tests.sampling import one_fast
from tests.support.queues import somebody_else

TASKS = """
from maildefer.tasks import task
@task(every="1h")
def digest(): raise RuntimeError
@task(cron="15 3 * * *", tz="Europe/Berlin", catch_up="none")
def backup(): ...
@task
def other(): ...
"""
DIGEST = PeriodicTask(name="workers.nightly.digest", schedule=Schedule(every_seconds=3600))


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Path:
    here = Path.cwd()
    for package in ("conf", "workers"):
        (here / package).mkdir()
        (here / package / "__init__.py").touch()
    (here / "conf" / "settings.py").write_text('queues = {"run/queue": ["workers.nightly"]}\n')
    (here / "workers" / "nightly.py").write_text(TASKS)
    return here


@pytest.fixture
def layout(project: Path) -> Layout:
    return create_queue(str(project / "run/queue"))


def ticks(layout: Layout) -> Ticks:
    return Ticks(layout, host="test-000000")


@pytest.mark.slow
def test_the_tasks_are_listed_with_their_schedules_before_any_pool_has_run(
    maildefer: Maildefer, project: Path
) -> None:
    ended = maildefer("periodic", "list")
    assert ended.code == 0
    _, backup, digest = (line.split() for line in ended.out.splitlines())
    assert backup[:3] == ["workers.nightly.backup", "run/queue", "15"]
    assert backup[7] == "Europe/Berlin"
    assert digest[:5] == ["workers.nightly.digest", "run/queue", "every", "1h", "-"]
    assert digest[5].endswith(":00:00Z")
    assert not (project / "run").exists(), "looking makes no queue"


@pytest.mark.slow
def test_the_last_instant_and_its_key_are_told(maildefer: Maildefer, layout: Layout) -> None:
    ticks(layout).begin(DIGEST.folder, 1_795_852_000)
    first = maildefer("periodic", "list", "--json").records[1]
    assert (first["task"], first["last"], first["last_key"]) == ("workers.nightly.digest", None, None)
    ticks(layout).push(DIGEST.folder, Tick(instant=1_795_852_000, key=""), 1_795_852_800, lambda stem: [b"x"])
    record = maildefer("periodic", "list", "--json").records[1]
    (key,) = os.listdir(layout.new)
    assert (record["last"], record["last_key"]) == (1_795_852_800, key)
    assert record["next"] > time.time() - 60
    assert record["next"] % 3600 == 0
    assert record["paused"] is False


@pytest.mark.slow
def test_a_call_can_be_pushed_now(maildefer: Maildefer, project: Path) -> None:
    ended = maildefer("periodic", "run", "digest")
    assert ended.code == 0
    path = project / "run/queue/new" / ended.out.strip()
    data = path.read_bytes()
    call = call_in(data[data.rindex(b"To: ") :], str(project / "run/queue"), path.name)
    assert (call.task, call.args) == ("workers.nightly.digest", [])


@pytest.mark.slow
def test_from_another_directory_the_queue_is_the_projects(
    maildefer: Maildefer, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILDEFER_PROJECT", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    ticks(layout).begin(DIGEST.folder, 1_795_852_000)
    ticks(layout).push(DIGEST.folder, Tick(instant=1_795_852_000, key=""), 1_795_852_800, lambda stem: [b"x"])
    assert maildefer("periodic", "list", "--json").records[1]["last"] == 1_795_852_800
    key = maildefer("periodic", "run", "digest").out.strip()
    assert key in os.listdir(layout.new)
    maildefer("periodic", "pause", "digest")
    assert ticks(layout).paused() == {"workers.nightly.digest"}


@pytest.mark.slow
def test_a_task_is_paused_and_resumed_for_all_hosts(maildefer: Maildefer, layout: Layout) -> None:
    assert maildefer("periodic", "pause", "nightly.digest").out == "workers.nightly.digest is paused\n"
    assert maildefer("periodic", "pause", "digest").out == "workers.nightly.digest was paused already\n"
    assert ticks(layout).paused() == {"workers.nightly.digest"}
    assert [record["paused"] for record in maildefer("periodic", "list", "--json").records] == [False, True]
    assert maildefer("periodic", "list").out.splitlines()[-1].endswith("paused")
    assert maildefer("periodic", "resume", "digest").out == "workers.nightly.digest goes on\n"
    assert maildefer("periodic", "resume", "digest").out == "workers.nightly.digest was not paused\n"
    assert ticks(layout).paused() == set()


@one_fast("command", ["run", "pause", "resume"])
@pytest.mark.slow
def test_a_name_that_is_none_is_told_with_those_there_are(
    maildefer: Maildefer, project: Path, command: str
) -> None:
    for name in ("other", "digest2", ""):
        ended = maildefer("periodic", command, name)
        assert ended.code == 1
        assert "name one of workers.nightly.backup, workers.nightly.digest" in ended.err
    assert not (project / "run").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to be somebody else")
@pytest.mark.parametrize("paused", [False, True])
def test_a_pause_by_who_may_not_write_tells_the_path_and_what_to_do(
    maildefer: Maildefer, public_queue: Layout, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    layout = public_queue
    ticks(layout).pause(DIGEST.label)
    if not paused:
        ticks(layout).resume(DIGEST.label)
    # What reads the project is tried elsewhere; that user can't read this one.
    monkeypatch.setattr(periodic, "_tasks", lambda: [DIGEST])
    monkeypatch.setattr(periodic, "_path", lambda task: layout.path)
    with somebody_else():
        ended = maildefer("periodic", "resume" if paused else "pause", "digest")
    assert ended.code == 1
    assert f"{layout.periodic}: Permission denied: give this user" in ended.err
    assert ticks(layout).paused() == ({DIGEST.label} if paused else set())


@pytest.mark.parametrize("command", [("list",), ("run", "digest"), ("pause", "digest"), ("resume", "digest")])
def test_outside_of_a_project_it_is_told_how_to_name_one(
    maildefer: Maildefer, command: tuple[str, ...]
) -> None:
    ended = maildefer("periodic", *command)
    assert (ended.code, ended.out) == (78, "")
    assert f"no project here, as {Path.cwd()} has no settings" in ended.err
    assert "MAILDEFER_PROJECT" in ended.err


@pytest.mark.slow
def test_a_schedule_that_never_comes_is_told_with_its_line(maildefer: Maildefer, project: Path) -> None:
    (project / "workers" / "nightly.py").write_text(TASKS.replace("15 3 * * *", "0 0 31 2 *"))
    ended = maildefer("periodic", "list")
    assert ended.code == 78
    assert "workers/nightly.py:5" in ended.err


@pytest.mark.slow
def test_a_project_without_schedules_is_told_how_to_give_one(maildefer: Maildefer, project: Path) -> None:
    (project / "workers" / "nightly.py").write_text(
        "from maildefer.tasks import task\n@task\ndef other(): ...\n"
    )
    ended = maildefer("periodic", "list")
    assert (ended.code, ended.out) == (0, "")
    assert "@task(every=" in ended.err
