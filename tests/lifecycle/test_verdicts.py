"""`maildefer reload` tells what came of it, here and on other hosts."""

from __future__ import annotations

import pytest

from tests.lifecycle.commands import maildefer
from tests.lifecycle.conftest import Start
from tests.lifecycle.project import Project

pytestmark = pytest.mark.lifecycle


def break_it(project: Project) -> None:
    project.edit("workers/front.py", "def HANDLE(", "def HANDLE((")


def mend_it(project: Project) -> None:
    project.edit("workers/front.py", "def HANDLE((", "def HANDLE(")


def test_a_reload_waits_for_the_verdict(project: Project, start: Start) -> None:
    pool = start(workers=1)
    accepted = maildefer(pool, "reload")
    assert accepted.returncode == 0, accepted.stderr
    assert "accepted" in accepted.stdout
    break_it(project)
    refused = maildefer(pool, "reload")
    assert refused.returncode == 78
    assert "workers/front.py" in refused.stderr
    assert "what it had loaded goes on" in refused.stderr
    mend_it(project)
    assert maildefer(pool, "reload").returncode == 0


def test_a_reload_that_is_not_waited_for_only_asks(project: Project, start: Start) -> None:
    pool = start(workers=1)
    break_it(project)
    asked = maildefer(pool, "reload", "--no-wait")
    assert (asked.returncode, "sent SIGHUP" in asked.stdout) == (0, True)
    pool.await_event("application.broken")


def test_every_hosts_verdict_is_told_through_the_mount(project: Project, start: Start) -> None:
    pools = [start(workers=1, host=host) for host in "ab"]
    leases = [pool.status()["queues"][0]["lease"] for pool in pools]
    accepted = maildefer(pools[0], "reload", "--all-hosts", project.queue.path)
    assert accepted.returncode == 0, accepted.stderr
    assert all(f"{lease}: accepted" in accepted.stdout for lease in leases)
    break_it(project)
    refused = maildefer(pools[0], "reload", "--host", "b", project.queue.path)
    assert refused.returncode == 78
    assert f"{leases[1]}: refused" in refused.stderr
    assert "workers/front.py" in refused.stderr
    assert pools[0].events("application.broken") == [], "the other host was not asked"


@pytest.mark.ttl(300)
def test_a_host_that_does_not_answer_is_named(project: Project, start: Start) -> None:
    pool = start(workers=1)
    lease = "there-123456-99-aabbccddeeff"
    with open(f"{project.queue.leases}/{lease}.3", "w") as file:
        file.write("{}")
    ended = maildefer(pool, "reload", "--host", "there", "--timeout", "0.5", project.queue.path)
    assert ended.returncode == 1
    assert f"{lease}: no answer" in ended.stderr


def test_new_queues_are_a_verdict_too(project: Project, start: Start) -> None:
    pool = start(workers=1)
    project.edit("conf/settings.py", '"run/later"', '"run/another"')
    ended = maildefer(pool, "reload")
    assert (ended.returncode, "anew with the new settings" in ended.stdout) == (0, True), ended.stderr
    pool.await_event("pool.started", 2)
    pool.await_ready()


def test_settings_and_handlers_can_be_tried_without_a_pool(project: Project, start: Start) -> None:
    pool = start(workers=1)
    sound = maildefer(pool, "reload", "--check")
    assert sound.returncode == 0, sound.stderr
    assert "settings and handlers load: 2 queues" in sound.stdout
    break_it(project)
    broken = maildefer(pool, "reload", "--check")
    assert broken.returncode == 78
    assert "workers/front.py" in broken.stderr
    assert pool.stop() == 0
    assert pool.events("pool.reloading") == []
    assert pool.events("application.broken") == []
    mend_it(project)
    assert maildefer(pool, "reload", "--check").returncode == 0


def test_a_trial_of_settings_ends_with_its_timeout(project: Project, start: Start) -> None:
    pool = start(workers=1)
    never = "import signal\nsignal.pause()\n"
    (project.path / "workers" / "front.py").write_text(never)
    ended = maildefer(pool, "reload", "--check", "--timeout", "0.5")
    assert ended.returncode == 78
    assert "not loaded within 0.5 s" in ended.stderr
