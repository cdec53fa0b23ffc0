"""The repository itself: what is in it, and what a process that loads the blog has to pay for."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from maildefer.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
HEAVY = frozenset(
    (
        "aiosmtpd asyncio cronsim dns email filelock jinja2 logging.config mailbox psutil smtplib ssl structlog typer "
        "zoneinfo"
    ).split()
)


def tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


def test_no_module_is_over_300_lines() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text().splitlines()) for path in ROOT.glob("maildefer/**/*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 300} == {}


def test_no_file_names_a_package_registry_or_a_path_of_somebodys_machine() -> None:
    hosts = re.compile(
        "|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", r"deb\." + "debian", "index" + "-url"))
    )
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "replace")
        assert not hosts.search(text), path
        assert f"{ROOT}{os.sep}" not in text, path


def test_every_test_dependency_and_script_is_declared() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = re.findall(r"^([\w-]+)", config["options"]["install_requires"], re.MULTILINE)
    assert set(required) == {"cronsim", "filelock", "flufl", "Jinja2", "psutil", "structlog", "typer"}
    assert config["options.entry_points"]["console_scripts"].strip() == "maildefer = maildefer.cli:main"


def test_loading_the_blog_imports_nothing_heavy() -> None:
    code = (
        "from maildefer.utils import import_settings; import_settings(False)\n"
        "import sys, workers.posting, workers.index\n"
        f"print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_scripts_are_sound() -> None:
    for script in filter(Path.is_file, (ROOT / ".ci").iterdir()):
        assert os.access(script, os.X_OK), script
        if script.suffix == ".py":
            compile(script.read_text(), script, "exec")
        else:
            subprocess.run(["bash", "-n", script], check=True)


def test_the_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    entries = re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE)
    assert entries == recipe[1].replace("$(PYTHON)", ".venv/bin/python").replace("\t", "").splitlines()
    assert re.findall(r"repo: (.+)", hooks) == ["local"]
    assert re.findall(r"language: (.+)", hooks) == ["system"] * len(entries)


def test_each_commit_that_blame_passes_over_is_a_full_hash_of_this_history() -> None:
    lines = (ROOT / ".git-blame-ignore-revs").read_text().splitlines()
    hashes = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in hashes if not re.fullmatch(r"[0-9a-f]{40}", line)] == []
    if (ROOT / ".git").exists():  # a clone of the newest commits alone does not have them
        shallow = subprocess.run(
            ["git", "rev-parse", "--is-shallow-repository"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        if shallow.stdout.strip() == "false":
            for line in hashes:
                subprocess.run(["git", "merge-base", "--is-ancestor", line, "HEAD"], cwd=ROOT, check=True)


def test_the_change_log_begins_with_this_version_or_what_comes_after_it() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(version for version in versions if version != "Unreleased") == VERSION
    assert "Unreleased" not in versions[1:]
