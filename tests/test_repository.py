"""The repository itself: what is in it, and what a process that loads the blog has to pay for."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = frozenset(
    "aiosmtpd asyncio dns email filelock jinja2 logging.config mailbox psutil smtplib ssl structlog typer".split()
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
    assert set(required) == {
        "filelock",
        "flufl",
        "Jinja2",
        "psutil",
        "structlog",
        "typer",
    }
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
    for script in (ROOT / ".ci").iterdir():
        assert os.access(script, os.X_OK), script
        subprocess.run(["bash", "-n", script], check=True)
