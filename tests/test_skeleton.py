"""The project that `maildefer new` writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.cli.project_skeleton import ProjectExists, write_project

EXPECTED = {
    ".gitignore",
    "README.md",
    "conf/boot.py",
    "conf/deploy/maildefer-pool.service",
    "conf/settings.py",
    "pytest.ini",
    "tests/test_posting.py",
    "workers/index.py",
    "workers/posting.py",
    "workers/templates/page_ready.msg",
}


def names(project: Path, written: list[Path]) -> set[str]:
    return {str(path.relative_to(project)) for path in written}


def test_a_new_project_has_real_files_and_no_links(tmp_path: Path) -> None:
    project = tmp_path / "blog"
    written = write_project(project)
    assert names(project, written) >= EXPECTED
    assert all(path.is_file() and not path.is_symlink() for path in written)
    assert not [path for path in project.rglob("*") if path.is_symlink() or path.suffix == ".pyc"]


def test_an_empty_folder_may_become_a_project(tmp_path: Path) -> None:
    assert write_project(tmp_path)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ProjectExists, match="--force"):
        write_project(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "blog").write_text("a file")
    with pytest.raises(ProjectExists):
        write_project(tmp_path / "blog")


def test_force_overwrites_its_own_files_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    write_project(tmp_path, force=True)
    (tmp_path / "conf" / "settings.py").write_text("broken(")
    write_project(tmp_path, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert "router_defaults" in (tmp_path / "conf" / "settings.py").read_text()


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_tests_of_a_new_project_pass(tmp_path: Path) -> None:
    write_project(tmp_path / "blog")
    assert " passed" in run(sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", cwd=tmp_path / "blog")


@pytest.mark.slow
@pytest.mark.parametrize("where", [".", "blog", "blog/tests"])
def test_the_tests_of_a_new_project_are_run_from_wherever_one_stands(tmp_path: Path, where: str) -> None:
    write_project(tmp_path / "blog")
    # As `pytest` does.
    command = (sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:randomly", "-k", "index")
    assert " passed" in run(*command, *(["blog"] if where == "." else []), cwd=tmp_path / where)


@pytest.mark.slow
def test_a_conversation_reaches_the_handlers_of_each_queue_that_the_settings_list(tmp_path: Path) -> None:
    write_project(tmp_path)
    settings = tmp_path / "conf" / "settings.py"
    settings.write_text(
        settings.read_text().replace(
            "queues = {", 'queues = {"run/words": ["workers.words"], "run/kept": [], '
        )
    )
    (tmp_path / "workers" / "words.py").write_text(
        "from maildefer.routing import route, stateless\n"
        '@route("words@(host)")\n@stateless\ndef START(message, host=None): print("heard")\n'
    )
    code = (
        "from conf import testing; from maildefer.testing import RouterConversation as Talk\n"
        "Talk('ann@example.org', 'hello').say('words@example.org', 'some')"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path) == "heard\n"


@pytest.mark.slow
def test_the_receiver_of_its_second_queue_gives_handlers_a_relay(tmp_path: Path) -> None:
    write_project(tmp_path)
    code = (
        "from maildefer import utils; utils.import_settings(boot_also=False); import conf.queue\n"
        "print(utils.settings.relay.queue)"
    )
    assert run(sys.executable, "-c", code, cwd=tmp_path) == "run/outgoing\n"
