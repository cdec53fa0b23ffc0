"""A path means one place, the project's, wherever a process stands."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from maildefer.confirm import ConfirmationStorage
from maildefer.errors import ConfigurationError, QueueMissing, QueueUnlisted
from maildefer.handling.project import finder
from maildefer.handling.project import settings as settings_module
from maildefer.handling.project.settings import load_settings, pool_settings, project
from maildefer.queue import Queue
from maildefer.routing import DirectoryStorage, ShelveStorage
from maildefer.server import LMTPReceiver, QueueReceiver
from maildefer.view import jinja_loader
from tests.sampling import one_fast

SETTINGS = 'queues = {"run/queue": ["workers.notify"], "run/kept": []}\n'
NOTIFY = """
from maildefer.tasks import task

@task(queue="run/queue")
def notify(number): ...
"""
Run = Callable[..., str]


@pytest.fixture
def blog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project, and a process that stands elsewhere."""
    blog = tmp_path / "blog"
    for file, text in (("conf/settings.py", SETTINGS), ("workers/notify.py", NOTIFY)):
        write(blog / file, text)
        write((blog / file).parent / "__init__.py", "")
    write(tmp_path / "site" / "index.html", "")
    monkeypatch.chdir(tmp_path / "site")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(settings_module, "_loaded", None)
    for variable in (*finder.VARIABLES, finder.PROJECT):
        monkeypatch.delenv(variable, raising=False)
    importlib.invalidate_caches()
    yield blog
    for name in [name for name in sys.modules if name.partition(".")[0] in ("workers", "shop")]:
        del sys.modules[name]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def run(code: str, cwd: Path, **environment: object) -> str:
    """What the code prints in a process of its own; else the last line of its traceback."""
    given = {name: text for name, text in os.environ.items() if name not in finder.VARIABLES}
    given |= {name: str(value) for name, value in environment.items()}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=given, capture_output=True, text=True, check=False
    )
    return (done.stdout if done.returncode == 0 else done.stderr.strip().splitlines()[-1]).strip()


PUSH = "from maildefer.queue import Queue; q = Queue('run/queue'); q.push(b'x'); print(q.layout.path)"


def test_a_queue_is_the_projects_that_the_variable_names(blog: Path) -> None:
    assert run(PUSH, blog.parent / "site", MAILDEFER_PROJECT=blog) == str(blog / "run" / "queue")
    assert len(os.listdir(blog / "run" / "queue" / "new")) == 1
    assert os.listdir(blog.parent / "site") == ["index.html"]


def test_a_process_below_the_project_is_in_it_as_one_that_stands_in_it(blog: Path) -> None:
    for where in (blog, blog / "workers"):
        assert run(PUSH, where) == str(blog / "run" / "queue")
    assert len(os.listdir(blog / "run" / "queue" / "new")) == 2


@pytest.mark.slow
def test_a_folder_above_in_which_others_may_write_is_no_project(blog: Path) -> None:
    blog.chmod(0o777)
    try:
        assert "no queue at" in run(PUSH, blog / "workers")
        assert not (blog / "run").exists()
        assert run(PUSH, blog) == str(blog / "run" / "queue")  # who stands in it means it
    finally:
        blog.chmod(0o755)


@pytest.mark.parametrize("said", ["", "blog", "/nowhere/at/all"])
def test_a_variable_that_names_no_folder_is_refused(
    blog: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setenv(finder.PROJECT, said)
    if said:
        with pytest.raises(ConfigurationError, match="absolute path"):
            Queue("run/queue")
    else:
        assert project() == os.getcwd()


def test_a_loaded_settings_module_tells_the_project(blog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(blog))
    settings = load_settings("conf.settings")
    assert pool_settings(settings).project == project() == str(blog)
    Queue("run/queue").push(b"x")
    assert len(os.listdir(blog / "run" / "queue" / "new")) == 1
    Queue(str(blog / "run" / "queue"), oversize_dir="run/kept", pop_limit=1)
    assert (blog / "run" / "kept" / "new").is_dir()
    assert os.listdir() == ["index.html"]


def test_settings_that_are_imported_or_named_tell_the_project_too(blog: Path) -> None:
    site = blog.parent / "site"
    (site / "run").mkdir()
    assert run(f"from conf import settings; {PUSH}", site, PYTHONPATH=blog) == str(blog / "run" / "queue")
    named = {"PYTHONPATH": blog, "MAILDEFER_SETTINGS_MODULE": "conf.settings"}
    assert run(PUSH, site, **named) == str(blog / "run" / "queue")
    assert os.listdir(site / "run") == []


@one_fast(
    "before", ["", "import conf.settings", "import workers.notify", "from maildefer.utils import settings"]
)
@pytest.mark.slow
def test_settings_that_can_be_imported_come_before_a_working_directory_without(
    blog: Path, before: str
) -> None:
    site = blog.parent / "site"
    (site / "run").mkdir()
    for where in (site, Path("/")):
        assert run(f"{before}\n{PUSH}", where, PYTHONPATH=blog) == str(blog / "run" / "queue")
    assert os.listdir(site / "run") == []
    write(site / "conf" / "settings.py", SETTINGS)
    write(site / "conf" / "__init__.py", "")
    assert run(PUSH, site, PYTHONPATH=blog) == str(site / "run" / "queue")  # who stands in a project means it


def test_a_path_that_meant_another_place_before_the_settings_were_there_is_refused(blog: Path) -> None:
    site = blog.parent / "site"
    (site / "run").mkdir()
    late = (
        f"import sys; sys.path.insert(0, {str(blog)!r}); from workers.notify import notify; notify.defer(1)"
    )
    told = run(f"{PUSH}\n{late}\n{PUSH}", site)
    assert f"run/queue would be in {blog} now" in told
    assert f"relative paths in {site}: import the settings before" in told


@one_fast(
    "said",
    [
        "DEBUG = True\nLOGGING = {'handlers': {}, 'x': dict(handlers=1)}\n",
        "from .base import *\nDEBUG = False\n",
        "from conf.base import *\n",
    ],
)
@pytest.mark.slow
def test_settings_without_a_name_of_ours_are_no_project(blog: Path, said: str) -> None:
    site = blog.parent / "site"
    write(site / "conf" / "settings.py", said)
    write(site / "conf" / "base.py", "DEBUG = True\nraise SystemExit('it was run')\n")
    (site / "run").mkdir()
    assert run(PUSH, site, PYTHONPATH=site) == str(site / "run" / "queue")  # outside of a project
    below = "from maildefer.queue import Queue; Queue('run/queue')"
    (site / "below").mkdir()
    assert "nor a folder" in run(below, site / "below")
    write(site / "conf" / "base.py", "queues = {'run/queue': ['x']}\n")
    if "import" in said:
        assert run(PUSH, site / "below") == str(site / "run" / "queue")


@pytest.mark.slow
def test_a_variable_makes_a_project_of_any_settings(blog: Path) -> None:
    site = blog.parent / "site"
    write(site / "conf" / "settings.py", "MAIL = True\n")
    write(site / "conf" / "__init__.py", "")
    (site / "below" / "run").mkdir(parents=True)
    (site / "run").mkdir()
    assert run(PUSH, site / "below", MAILDEFER_PROJECT=site) == str(site / "run" / "queue")
    named = {"MAILDEFER_SETTINGS_MODULE": "conf.settings", "PYTHONPATH": site}
    assert run(PUSH, site / "below", **named) == str(site / "run" / "queue")


def test_a_variable_that_names_a_folder_without_settings_is_refused(blog: Path) -> None:
    site = blog.parent / "site"
    (site / "run").mkdir()
    told = run(PUSH, site, MAILDEFER_PROJECT=site)
    assert f"MAILDEFER_PROJECT='{site}' has no conf/settings.py or config/settings.py" in told
    assert os.listdir(site / "run") == []
    told = run(PUSH, site, MAILDEFER_PROJECT=blog / "conf")
    assert f"give the folder that has one of them, {blog}, or name" in told


def test_stores_templates_and_socket_files_are_the_projects(
    blog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(blog))
    load_settings("conf.settings")
    (blog / "run").mkdir()
    DirectoryStorage("run/states").set("key", "ann@x", "NEXT")
    ConfirmationStorage("run/confirmations").store("list", "ann@x", "secret", "key")
    ShelveStorage("run/shelf").set("key", "ann@x", "NEXT")
    assert {"states", "confirmations"} < set(os.listdir(blog / "run"))
    assert jinja_loader("workers/templates").paths == [str(blog / "workers" / "templates")]
    receiver = LMTPReceiver(socket="run/lmtp")
    receiver.close()
    assert (blog / "run" / "lmtp").is_socket()
    QueueReceiver("run/kept")
    assert os.listdir() == ["index.html"]


def test_the_settings_of_an_installed_package_are_at_home_where_the_process_stood(
    blog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = blog.parent / "lib" / "site-packages"
    write(installed / "shop" / "settings.py", SETTINGS)
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setenv("MAILDEFER_SETTINGS_MODULE", "shop.settings")
    monkeypatch.chdir(blog)
    settings = load_settings()
    monkeypatch.chdir(blog.parent / "site")
    assert (project(), pool_settings(settings).project) == (str(blog), str(blog))
    monkeypatch.setenv(finder.PROJECT, str(blog.parent / "site"))
    assert project() == pool_settings(settings).project == os.getcwd()


def test_outside_of_a_project_a_queue_is_made_but_not_the_folders_above_it(blog: Path) -> None:
    with pytest.raises(QueueMissing, match=r"nor a folder .*/site/run to make it in.*MAILDEFER_PROJECT"):
        Queue("run/queue")
    assert os.listdir() == ["index.html"]
    os.mkdir("run")
    Queue("run/queue").push(b"x")
    with pytest.raises(QueueMissing):
        Queue(str(blog.parent / "none" / "queue"))


def test_a_daemon_that_stands_in_the_root_makes_no_queue_in_the_systems_run(blog: Path) -> None:
    assert not os.path.exists("/run/queue")
    assert "run/queue is in no project, as this process stands in /" in run(PUSH, Path("/"))
    assert not os.path.exists("/run/queue")


def test_a_queue_that_is_not_among_those_that_the_settings_list_is_not_made(
    blog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(finder.PROJECT, str(blog))
    with pytest.raises(QueueUnlisted, match=r'conf/settings.py:1: correct the name, or add "run/quue": \[\]'):
        Queue("run/quue")
    assert not (blog / "run").exists()
    Queue("run/kept")  # by programs only
    Queue(str(blog.parent / "another"))  # out of the project
    os.makedirs(blog / "run" / "mail" / "new")
    os.makedirs(blog / "run" / "mail" / "cur")
    os.makedirs(blog / "run" / "mail" / "tmp")
    Queue("run/mail").push(b"x")  # what is there is there


def test_settings_that_list_no_queues_leave_it_to_programs_as_salmon_does(blog: Path) -> None:
    write(blog / "conf" / "settings.py", 'handlers = ["workers.notify"]\n')
    code = "from maildefer.queue import Queue; Queue('run/undeliverable')"
    assert run(code, blog.parent / "site", MAILDEFER_PROJECT=blog) == ""
    assert (blog / "run" / "undeliverable" / "new").is_dir()


def test_no_pool_serves_a_queue_without_handlers(blog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(finder.PROJECT, str(blog))
    known = pool_settings(load_settings())
    assert (known.queues, known.kept) == ({"run/queue": ("workers.notify",)}, ("run/kept",))


def test_the_settings_of_a_web_site_make_it_no_project(blog: Path) -> None:
    site = blog.parent / "site"
    write(site / "config" / "settings.py", "DEBUG = True\n")
    write(site / "config" / "__init__.py", "")
    assert "nor a folder" in run(PUSH, site)
    assert not (site / "run").exists()


def test_another_programs_settings_of_the_same_name_are_told_apart(blog: Path) -> None:
    site = blog.parent / "site"
    write(site / "config" / "settings.py", "DEBUG = True\n")
    write(site / "config" / "__init__.py", "")
    (blog / "conf").rename(blog / "config")
    told = run(f"import config.settings; {PUSH}", site, MAILDEFER_PROJECT=blog)
    assert f"config.settings is {site}/config/settings.py in this process, and not {blog}" in told
    assert not (blog / "run").exists()


@pytest.mark.slow
def test_a_call_of_a_task_waits_in_the_functions_own_project(blog: Path) -> None:
    code = "from workers.notify import notify; notify.defer(1)"
    for environment in ({"PYTHONPATH": blog}, {"PYTHONPATH": blog, "MAILDEFER_PROJECT": blog}):
        assert run(code, blog.parent / "site", **environment) == ""
    assert len(os.listdir(blog / "run" / "queue" / "new")) == 2
    write(blog / "conf" / "settings.py", SETTINGS.replace("run/queue", "run/elsewhere"))
    assert "no setting lists the queue run/queue" in run(code, blog.parent / "site", PYTHONPATH=blog)


@pytest.mark.slow
def test_settings_that_make_a_queue_themselves_are_loaded(blog: Path) -> None:
    write(
        blog / "conf" / "settings.py", "from maildefer.queue import Queue\nq = Queue('run/own')\n" + SETTINGS
    )
    assert run(PUSH, blog) == str(blog / "run" / "queue")
    assert (blog / "run" / "own").is_dir()
