"""One application for all workers: the template, its forks, and what dies in between."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from maildefer.host.identity import pid_exists, stat_fields
from tests.lifecycle.conftest import Start
from tests.lifecycle.pool import ROOT, Pool, survivors
from tests.lifecycle.project import Project, eventually

pytestmark = pytest.mark.lifecycle

HEAD = '"""Two'  # of the settings


def begin_with(project: Project, code: str) -> None:
    """Have the settings module begin with that code."""
    project.edit("conf/settings.py", HEAD, f"{code}\n{HEAD}")


def loads(project: Project) -> list[int]:
    """The pids of the processes in which the application was loaded, the probes' aside."""
    try:
        return list(map(int, (project.path / "loads").read_text().split()))
    except FileNotFoundError:
        return []


def note_loads(project: Project) -> None:
    begin_with(
        project,
        'import os, sys\nif "maildefer.pool.worker.worker" in sys.modules:\n'
        '    with open("loads", "a") as file: file.write(f"{os.getpid()}\\n")',
    )


def parent(pid: int) -> int:
    fields = stat_fields(pid)
    return int(fields[1]) if fields else 0


def handles(project: Project, count: int = 3) -> None:
    before = len(project.notes("end"))
    project.push("quick", count)
    eventually(lambda: len(project.notes("end")) == before + count, "messages are handled")
    eventually(project.is_empty, "and acked")


def test_the_application_is_loaded_once_for_all_workers_which_are_the_supervisors_children(
    project: Project, start: Start
) -> None:
    note_loads(project)
    pool = start(workers=4)
    assert loads(project) == [pool.child("template")]
    workers = pool.worker_pids()
    assert {parent(pid) for pid in workers} == {pool.pid}
    os.kill(workers[0], signal.SIGKILL)
    pool.await_event("worker.started", 5)
    assert loads(project) == [pool.child("template")], "a successor loads nothing"
    handles(project)
    assert pool.stop() == 0


ENGINE = """
def _engine(argument):
    import sys
    with open("engine", "w") as file: file.write(str("jinja2" in sys.modules))


ACTIONS: dict"""


@pytest.mark.parametrize("config", ['{"dir": "workers"}', "None"])
def test_the_engine_of_templates_is_loaded_before_the_first_message_where_there_are_any(
    project: Project, start: Start, config: str
) -> None:
    begin_with(project, f"template_config = {config}")
    project.edit("workers/front.py", "ACTIONS: dict", ENGINE)
    project.edit("workers/front.py", '"quick": lambda', '"engine": _engine, "quick": lambda')
    pool = start(workers=1)
    project.push("engine")
    eventually(lambda: bool(project.notes("end")), "it is handled")
    assert (project.path / "engine").read_text() == str(config != "None")
    assert pool.stop() == 0


def test_a_killed_template_harms_no_worker_and_has_a_successor(project: Project, start: Start) -> None:
    note_loads(project)
    pool = start(workers=2)
    workers, first = pool.worker_pids(), pool.child("template")
    project.push("wait")
    eventually(lambda: project.notes("start"), "a handler runs")
    os.kill(first, signal.SIGKILL)
    pool.await_event("child.started", 2, kind="template")
    eventually(lambda: len(loads(project)) == 2, "it loads the application")
    assert pool.worker_pids() == workers
    os.kill(next(pid for pid in workers if pid != project.notes("start")[0].pid), signal.SIGKILL)
    pool.await_event("worker.started", 3)
    project.go()
    eventually(project.is_empty, "the handler has ended")
    assert not pool.events("worker.died", pid=project.notes("start")[0].pid)
    assert pool.stop() == 0


def test_a_killed_supervisor_leaves_neither_template_nor_worker(project: Project, start: Start) -> None:
    pool = start(workers=3)
    project.push("wait")
    eventually(lambda: project.notes("start"), "a handler runs")
    os.kill(pool.pid, signal.SIGKILL)
    eventually(lambda: not survivors(project.path), "all end with it")
    assert not project.notes("end")


def test_orphans_of_others_are_reaped(project: Project, start: Start) -> None:
    """Of a handler that has forked twice, as a worker is."""
    project.edit(
        "workers/front.py",
        "ACTIONS: dict",
        "def _orphan(argument):\n"
        "    if not (child := os.fork()):\n"
        "        if not os.fork():\n"
        "            while os.path.exists('orphans'): time.sleep(0.005)\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n\n\n"
        "ACTIONS: dict",
    )
    project.edit("workers/front.py", '"quick": lambda', '"orphan": _orphan, "quick": lambda')
    (project.path / "orphans").touch()
    pool = start(workers=1)
    worker = pool.worker_pids()
    project.push("orphan", 3)
    eventually(lambda: len(project.notes("end")) == 3, "there are three")
    eventually(lambda: len(adopted(pool)) == 3, "they are the supervisor's")
    (project.path / "orphans").unlink()
    eventually(lambda: not adopted(pool), "they are reaped")
    assert pool.worker_pids() == worker
    assert pool.stop() == 0


def adopted(pool: Pool) -> list[int]:
    """The supervisor's children that are no part of the pool, zombies among them."""
    children = Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()
    parts = {pool.child(kind) for kind in ("keeper", "scout", "template")} | set(pool.worker_pids())
    return [int(pid) for pid in children if int(pid) not in parts]


# What dies between the order and the worker: project code in the template, as the template itself does these steps.

DIES = """
import os, signal, sys, time
if "maildefer.pool.worker.worker" in sys.modules:
    from maildefer.pool.template import process as _process

    def _is_told(step):
        try:
            os.rename(step, f"{step}.done")
            return True
        except FileNotFoundError:
            return False

    _again, _become = _process.ReadyTemplate._fork_again, _process.ReadyTemplate._become_worker
    _await, _tell = _process._await_registration, _process.tell

    def _fork_again(self, *given):
        if _is_told("between"):
            os.kill(os.getpid(), signal.SIGKILL)
        _again(self, *given)

    def _become_worker(self, *given):
        if _is_told("unsaid"):
            os.kill(os.getpid(), signal.SIGKILL)
        return _become(self, *given)

    def _await_registration(*given):
        if _is_told("unregistered"):
            os.kill(os.getpid(), signal.SIGKILL)
        _await(*given)

    def _told(socket, message):
        if isinstance(message, _process.WorkerForked) and _is_told("template"):
            open("limbo", "w").write(str(message.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(message, _process.WorkerForked) and _is_told("reaped"):
            os.kill(message.pid, signal.SIGKILL)
            while os.path.exists(f"/proc/{message.pid}"):
                time.sleep(0.001)
        _tell(socket, message)

    _process.ReadyTemplate._fork_again, _process.ReadyTemplate._become_worker = _fork_again, _become_worker
    _process._await_registration, _process.tell = _await_registration, _told
"""


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("between", "fork.failed"),
        ("unsaid", "fork.failed"),
        ("unregistered", "worker.died"),
        ("reaped", "worker.died"),
        ("template", "child.died"),
    ],
)
def test_whatever_dies_while_a_worker_is_forked_there_is_another_and_none_that_nobody_knows(
    project: Project, start: Start, step: str, told: str
) -> None:
    begin_with(project, DIES)
    pool = start(workers=2)
    (project.path / step).touch()
    killed = pool.worker_pids()[0]
    os.kill(killed, signal.SIGKILL)
    eventually((project.path / f"{step}.done").exists, "it dies")
    pool.await_event("worker.started", 3)
    eventually(lambda: len(pool.worker_pids()) == 2, "there are two again")
    assert len(pool.events(told)) >= (2 if told == "worker.died" else 1)
    handles(project)
    if step == "template":
        limbo = int((project.path / "limbo").read_text())
        eventually(lambda: not pid_exists(limbo), "what was forked ends without having been a worker")
        assert not pool.events("worker.started", pid=limbo)
    eventually(lambda: not adopted(pool), "no other process is left")
    assert [event["charged"] for event in pool.events("worker.died")] == [False] * len(
        pool.events("worker.died")
    )
    assert pool.stop() == 0


# While there is a file `short` beside it only: on a busy machine what is sound takes longer than a second, too.
SHORT_LIMIT = """
import os
from maildefer.pool.supervisor import templates

_short = os.path.join(os.path.dirname(__file__), "short")
_receive = templates.Templates.receive

def receive(self):
    templates.LIMIT_SECONDS = templates._FORK_SECONDS = 1 if os.path.exists(_short) else 60
    _receive(self)

templates.Templates.receive = receive
"""


def test_a_template_that_hangs_at_a_reload_is_ended_and_leaves_the_old_one(
    project: Project, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("short")
    (folder / "sitecustomize.py").write_text(SHORT_LIMIT)
    pool = start(workers=2, environ={"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})
    old = pool.worker_pids()
    begin_with(project, 'import sys, time\nif "maildefer.pool.worker.worker" in sys.modules: time.sleep(600)')
    (folder / "short").touch()
    pool.signal(signal.SIGHUP)
    eventually(lambda: "not loaded for the workers" in str(pool.status()["reload_refused"]), "it is refused")
    (folder / "short").unlink()
    assert "not loaded for the workers" in pool.await_event("application.broken")["error"]
    os.kill(old[0], signal.SIGKILL)
    pool.await_event("worker.started", 3)
    handles(project)
    assert old[1] in pool.worker_pids()
    assert pool.status()["generation"] == 1
    assert pool.stop() == 0


def test_a_template_that_hangs_at_a_fork_is_ended_with_what_hangs(
    project: Project, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("short")
    (folder / "sitecustomize.py").write_text(SHORT_LIMIT)
    begin_with(
        project,
        "import os, sys, time\n"
        'if "maildefer.pool.worker.worker" in sys.modules:\n'
        "    os.register_at_fork(after_in_child=lambda: time.sleep(600 if os.path.exists('hang') else 0))",
    )
    pool = start(workers=2, environ={"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"})
    (project.path / "hang").touch()
    (folder / "short").touch()
    killed, other = pool.worker_pids()
    os.kill(killed, signal.SIGKILL)
    assert "no worker was forked" in pool.await_event("application.broken")["error"]
    (project.path / "hang").unlink()
    (folder / "short").unlink()
    pool.await_event("worker.started", 3)
    assert other in pool.worker_pids()
    eventually(lambda: not adopted(pool), "what hung is gone")
    handles(project)
    assert pool.stop() == 0


@pytest.mark.parametrize("said", ["[[[[", '{"slot": 1, "pid": 7777777}', '{"ready": 1}'])
def test_a_template_that_says_nonsense_is_ended_and_replaced(
    project: Project, start: Start, said: str
) -> None:
    begin_with(
        project,
        "import os, sys\n"
        'if "maildefer.pool.worker.worker" in sys.modules and os.path.exists("lie"):\n'
        '    os.unlink("lie")\n'
        "    from maildefer.pool.template import process as _process\n"
        f"    _process.tell = lambda socket, message: socket.send({said!r}.encode())",
    )
    pool = start(workers=2)
    workers = pool.worker_pids()
    (project.path / "lie").touch()
    os.kill(pool.child("template"), signal.SIGKILL)
    pool.await_event("child.misbehaved", kind="template")
    pool.await_event("child.started", 3, kind="template")
    assert pool.worker_pids() == workers
    os.kill(workers[0], signal.SIGKILL)
    pool.await_event("worker.started", 3)
    handles(project)
    assert pool.stop() == 0


def test_a_template_that_has_closed_all_descriptors_is_ended_and_none_of_it_keeps_the_supervisor_awake(
    project: Project, start: Start
) -> None:
    begin_with(
        project,
        'import os, sys\nif "maildefer.pool.worker.worker" in sys.modules and os.path.exists("close"):\n'
        '    os.unlink("close")\n    os.closerange(3, 4096)\n    import time; time.sleep(600)',
    )
    pool = start(workers=2)
    workers = pool.worker_pids()
    (project.path / "close").touch()
    os.kill(pool.child("template"), signal.SIGKILL)
    pool.await_event("child.died", 2, kind="template", how="SIGKILL")
    pool.await_event("child.started", 3, kind="template")
    assert pool.worker_pids() == workers
    assert pool.stop() == 0


# What an application may not have open, and what it does instead

THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(9999,), name='poller', daemon=True).start()"
CONNECTION = "import socket\n_ours, _theirs = socket.socketpair()"
LOOP = "import asyncio\n_loop = asyncio.new_event_loop()"
FILE = "_file = open('loads.db', 'w+')"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (THREAD, "the thread poller"),
        (CONNECTION, "a connection to"),
        (LOOP, "an event loop"),
        (FILE, "the file "),
    ],
)
def test_what_workers_cannot_share_is_named_and_each_loads_the_application_by_itself(
    project: Project, start: Start, code: str, found: str
) -> None:
    begin_with(project, code)
    note_loads(project)
    pool = start(workers=2)
    assert found in pool.await_event("application.unshared")["found"]
    assert set(loads(project)[1:]) == set(pool.worker_pids())
    handles(project)
    pool.signal(signal.SIGHUP)
    pool.await_event("application.unshared", 2)
    pool.await_event("worker.started", 4)
    handles(project)
    assert not pool.events("child.died")
    assert pool.stop() == 0


def test_without_preload_each_worker_loads_the_application_by_itself(project: Project, start: Start) -> None:
    begin_with(project, f"{THREAD}\npreload = False")
    note_loads(project)
    pool = start(workers=2)
    assert set(loads(project)) == set(pool.worker_pids())
    handles(project)
    assert not pool.events("application.unshared")
    assert pool.stop() == 0


def test_after_fork_is_called_in_each_worker_before_its_first_message(project: Project, start: Start) -> None:
    (project.path / "conf" / "hooks.py").write_text(
        "import os, socket\n\n\ndef connect():\n"
        "    global ends\n    ends = socket.socketpair()\n"
        '    with open("connected", "a") as file:\n        file.write(f"{os.getpid()}\\n")\n'
    )
    begin_with(project, 'after_fork = ["conf.hooks.connect"]')
    note_loads(project)
    pool = start(workers=3)
    assert loads(project) == [pool.child("template")]
    assert set((project.path / "connected").read_text().split()) == set(map(str, pool.worker_pids()))
    handles(project)
    assert not pool.events("application.unshared")
    assert pool.stop() == 0


def test_an_after_fork_that_fails_keeps_the_pool_from_starting(project: Project, start: Start) -> None:
    (project.path / "conf" / "hooks.py").write_text("def connect():\n    raise OSError('no database')\n")
    begin_with(project, 'after_fork = ["conf.hooks.connect"]')
    pool = start(ready=False)
    assert pool.wait() == 78
    assert (
        "conf.hooks.connect failed: OSError: no database" in pool.await_event("application.broken")["error"]
    )


def test_an_import_that_prints_is_told_and_what_it_logs_by_an_own_handler_is_whole(
    project: Project, start: Start
) -> None:
    begin_with(
        project,
        'import os, sys\nif "maildefer.pool.worker.worker" in sys.modules:\n'
        '    print("loading")\n    os.write(1, b"by the descriptor\\n")\n    out = sys.stdout',
    )
    project.edit(
        "workers/front.py", "from workers.journal", "from conf import settings\nfrom workers.journal"
    )
    project.edit(
        "workers/front.py",
        '"quick": lambda',
        '"held": lambda _: print("half", end="", file=settings.out), "quick": lambda',
    )
    pool = start(workers=1)
    pool.await_event("handler.printed", 2)
    assert {event["text"] for event in pool.events("handler.printed")} == {"loading", "by the descriptor"}
    [key] = project.push("held")
    eventually(project.is_empty, "it is handled")
    assert pool.await_event("handler.printed", key=key)["text"] == "half"
    assert pool.stop() == 0
