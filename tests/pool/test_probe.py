from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from maildefer.errors import ConfigurationError
from maildefer.handling.application import PoolSettings
from maildefer.handling.periodic.table import task_in
from maildefer.pool import probe as probe_module

HANDLER = """
from maildefer.routing import route, stateless
@route("(name)@(host)", name="[a-z]+", host=".+")
@stateless
def START(message, name=None, host=None): ...
"""


def probe(project: Path, settings: str, handler: str = HANDLER) -> tuple[int, dict[str, Any], str]:
    """The exit code, the answer and standard error of a probe of this project."""
    for package in ("conf", "workers"):
        (project / package).mkdir()
        (project / package / "__init__.py").touch()
    (project / "conf" / "settings.py").write_text(settings)
    (project / "workers" / "posting.py").write_text(handler)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAILDEFER_")}
    command = [sys.executable, "-m", "maildefer.pool.probe_process"]
    ended = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, timeout=60)
    (line,) = ended.stdout.splitlines()
    return ended.returncode, json.loads(line), ended.stderr


def test_a_sound_project_is_described_in_one_line(tmp_path: Path) -> None:
    status, report, _ = probe(tmp_path, 'queues = {"run/queue": ["workers.posting"]}\nworkers = 3\n')
    assert status == 0
    assert PoolSettings.from_json(report["settings"]).workers == 3
    assert report["settings"]["project"] == str(tmp_path)
    assert report["queues"] == {"run/queue": ["workers.posting"]}
    assert report["routes"] == [
        {
            "queue": "run/queue",
            "pattern": "^(?P<name>[a-z]+)@(?P<host>.+)$",
            "module": "workers.posting",
            "function": "START",
            "stateless": True,
            "async": False,
            "retry": None,
            "timeout_seconds": None,
            "keep_seconds": None,
            "exclusive": False,
            "limits": [],
        }
    ]
    assert str(tmp_path / "workers" / "posting.py") in report["files"]
    assert report["reload"] is False


def test_router_reload_set_by_the_project_is_reported(tmp_path: Path) -> None:
    handler = HANDLER + "from maildefer.routing import Router\nRouter.RELOAD = True\n"
    assert probe(tmp_path, 'handlers = ["workers.posting"]\n', handler)[1]["reload"] is True


def test_what_user_code_prints_goes_to_standard_error(tmp_path: Path) -> None:
    settings = 'import os\nprint("hello")\nos.system("echo child")\nhandlers = ["workers.posting"]\n'
    status, _, errors = probe(tmp_path, settings)
    assert status == 0
    assert "hello" in errors
    assert "child" in errors


@pytest.mark.parametrize(
    ("settings", "handler", "error"),
    [
        ("queues = (\n", HANDLER, "settings.py:1: syntax error"),
        ('queues = {"run/queue": ["workers.posting"]}\n', "import no_such_module\n", "posting.py:1:"),
        ('queues = {"run/queue": ["workers.posting"]}\n', "raise SystemExit\n", "posting.py:1:"),
        ('queues = {"run/queue": ["workers.posting"]}\n', "", "has no routes"),
        (
            'queues = {"run/queue": ["workers.posting"]}\n',
            HANDLER.replace("...", 'return "workers.none.START"'),
            "posting.py:5: no handler workers.none.START",
        ),
    ],
)
def test_a_broken_project_is_an_error_with_exit_code_78(
    tmp_path: Path, settings: str, handler: str, error: str
) -> None:
    status, report, _ = probe(tmp_path, settings, handler)
    assert status == 78
    assert error in report["error"]


def test_a_traceback_begins_in_the_projects_code(tmp_path: Path) -> None:
    _, report, _ = probe(
        tmp_path, 'queues = {"run/queue": ["workers.posting"]}\n', "import json\njson.loads('x')\n"
    )
    first, second, *more = report["detail"].splitlines()
    assert first == "Traceback (most recent call last):"
    assert "workers/posting.py" in second
    assert "JSONDecodeError" in more[-1]
    assert "importlib" not in report["detail"]


def test_a_thread_of_the_projects_does_not_hold_the_answer_up(tmp_path: Path) -> None:
    settings = (
        "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
        'handlers = ["workers.posting"]\n'
    )
    assert probe(tmp_path, settings)[0] == 0


TASKS = """
from maildefer.tasks import task
@task(every="1h")
def digest(): ...
@task(cron="15 3 * * *", tz="Europe/Berlin", catch_up="none", overlap=False)
def backup(): ...
@task
def other(): ...
"""


def test_periodic_tasks_are_described_with_their_queues(tmp_path: Path) -> None:
    settings = 'queues = {"run/queue": ["workers.posting"], "run/slow/": ["workers.posting"]}\n'
    report = probe(tmp_path, settings, TASKS.replace('every="1h"', 'every="1h", queue="run/slow"'))[1]
    tasks = [task_in(record) for record in report["periodic"]]
    assert [(task.name, task.queue, str(task.schedule)) for task in tasks if task] == [
        ("workers.posting.backup", "run/queue", "15 3 * * *"),
        ("workers.posting.digest", "run/slow", "every 1h"),
    ]


def test_periodic_tasks_of_a_module_that_no_queue_lists_are_other_hosts(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(TASKS)
    status, report, _ = probe(
        tmp_path, 'queues = {"run/queue": ["workers.posting"]}\n', f"import jobs\n{HANDLER}"
    )
    assert status == 0
    assert report["periodic"] == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ('cron="0 0 31 2 *"', "never comes"),
        ('cron="15 3 * * *", tz="Europe/Atlantis"', "no zone that this host knows"),
        ('every="0.2s"', "is no time"),
        ('every="1h", cron="15 3 * * *"', "two schedules"),
    ],
)
def test_a_schedule_that_is_none_is_refused_with_its_line(tmp_path: Path, wrong: str, why: str) -> None:
    settings = 'queues = {"run/queue": ["workers.posting"]}\n'
    status, report, _ = probe(tmp_path, settings, TASKS.replace('every="1h"', wrong))
    assert status == 78
    assert why in report["error"]
    assert "workers/posting.py:3" in report["error"]


def test_more_periodic_tasks_than_one_message_holds_are_refused(tmp_path: Path) -> None:
    many = "".join(f"@task(every=60)\ndef digest_{number}(): ...\n" for number in range(500))
    settings = 'queues = {"run/queue": ["workers.posting"]}\n'
    status, report, _ = probe(tmp_path, settings, f"from maildefer.tasks import task\n{many}")
    assert status == 78
    assert "run/queue has 500 periodic tasks, too many for one queue" in report["error"]


@pytest.mark.parametrize("seconds", ["5", 5, -1.0, 0.0, float("nan"), float("inf"), [5.0]])
def test_a_route_whose_time_limit_is_none_is_no_route(seconds: object) -> None:
    route = {
        "queue": "q",
        "pattern": "p",
        "stateless": True,
        "exclusive": False,
        "async": False,
        "timeout_seconds": 5.0,
        "limits": ["2 at a time"],
    }
    assert probe_module._is_route(route)
    assert not probe_module._is_route({**route, "timeout_seconds": seconds})
    assert not probe_module._is_route({**route, "limits": [2]})


def test_a_name_that_is_nearly_a_settings_is_told_with_its_line(tmp_path: Path) -> None:
    settings = 'queues = {"run/queue": ["workers.posting"]}\nrelay_confg = {"host": "mx"}\n'
    status, _, said = probe(tmp_path, settings)
    assert status == 0
    assert "event=setting.misspelled name=relay_confg meant=relay_config" in said
    assert f"{tmp_path}/conf/settings.py:2" in said


def test_a_misspelled_name_is_told_where_the_project_is_broken_by_it(tmp_path: Path) -> None:
    status, report, said = probe(tmp_path, 'QUEUES = {"run/queue": ["workers.posting"]}\n')
    assert status == 78
    assert "no queues" in report["error"]
    assert "name=QUEUES meant=queues" in said


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", ChildProcessError),
        ("os.kill(os.getpid(), signal.SIGTERM)", ConfigurationError),
        ("os._exit(0)", ConfigurationError),
    ],
)
def test_a_probe_that_somebody_has_killed_says_nothing_of_the_application(
    tmp_path: Path, ending: str, error: type[Exception]
) -> None:
    """So a start ends with 1, after which a service manager tries again, and not with 78."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/__init__.py").touch()
    (tmp_path / "conf/settings.py").write_text(f"import os, signal\n{ending}\n")
    started = probe_module.Probe(str(tmp_path))
    with pytest.raises(error):
        started.wait()
    os.waitpid(started.pid, 0)
