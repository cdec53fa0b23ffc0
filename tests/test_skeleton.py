"""The project that `maildefer new` writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.cli.skeleton import ProjectExists, write_project

EXPECTED = {
    ".gitignore",
    "README.md",
    "conf/boot.py",
    "conf/deploy/maildefer-pool.service",
    "conf/settings.py",
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


def test_the_tests_of_a_new_project_pass(tmp_path: Path) -> None:
    write_project(tmp_path / "blog")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly"],
        cwd=tmp_path / "blog",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
