"""conf/deploy/constraints*.txt: all that maildefer needs, in one version each, every file by its hash."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
WHEELS = ROOT / ".cache/constraints"  # .ci/setup has put them there
BASE, EXTRAS = "constraints.txt", "constraints-extras.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
FILES = pytest.mark.parametrize("name", [BASE, EXTRAS])

_PACKAGE = re.compile(r"([a-z0-9-]+)==(\S+)(?: ; .+?)?((?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n")


def text_of(name: str) -> str:
    return (ROOT / "conf/deploy" / name).read_text()


def versions(name: str) -> dict[str, str]:
    return {package: version for package, version, _ in _PACKAGE.findall(text_of(name))}


def stated(name: str) -> list[Requirement]:
    """What setup.cfg asks for: by itself, and with the extras of a deployment."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    if name == EXTRAS:
        lines += [
            line
            for extra in ("mx", "uvloop", "web")
            for line in setup["options.extras_require"][extra].splitlines()
        ]
    return [Requirement(line) for line in lines if line]


def needed(requirement: Requirement) -> bool:
    """By some Python on Linux."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}
    return requirement.marker is None or any(
        requirement.marker.evaluate({**linux, "python_version": python, "python_full_version": f"{python}.0"})
        for python in PYTHONS
    )


def below(package: str, version: str) -> Iterator[Requirement]:
    """What a package needs, by the one that is installed here; nothing if that is another version, or none."""
    try:
        here = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return
    if here.version == version:
        yield from (found for found in map(Requirement, here.requires or []) if needed(found))


@FILES
def test_each_package_that_is_needed_is_there_in_a_version_that_will_do(name: str) -> None:
    pinned, waiting, seen = versions(name), stated(name), set()
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        assert package in pinned, f"{requirement}: make constraints"
        assert requirement.specifier.contains(pinned[package]), f"{requirement}: make constraints"
        if package not in seen:
            seen.add(package)
            waiting += below(package, pinned[package])
    assert len(seen) >= len(stated(name))


@FILES
def test_each_package_has_the_hashes_of_its_files_and_nothing_names_an_index(name: str) -> None:
    text = text_of(name)
    packages = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert _PACKAGE.sub("", packages) == "", "every line is of a package with hashes"
    assert not re.search(r"://|--(index|extra-index|find-links|trusted-host)|maildefer==", text)


def test_the_extras_come_with_the_same_versions() -> None:
    assert versions(BASE).items() <= versions(EXTRAS).items()


# Installed, without an index: from what .ci/setup has got.


@pytest.fixture
def wheels() -> Path:
    if not WHEELS.is_dir():
        pytest.skip("the pinned packages are not here: .ci/setup test")
    return WHEELS


def shell(command: str, wheels: Path) -> subprocess.CompletedProcess[str]:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["sh", "-ec", command], cwd=wheels.parent, env=environ, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a deployment has the file of hashes, and the wheel of maildefer."""
    (tmp_path / "conf/deploy").mkdir(parents=True)
    for name in (BASE, EXTRAS):
        shutil.copy(ROOT / "conf/deploy" / name, tmp_path / "conf/deploy")
    return tmp_path


@pytest.mark.slow
def test_what_the_readme_installs_from_them_is_all_that_maildefer_needs(place: Path, wheels: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Install\n")[2].partition("\n## ")[0]
    build, deploy = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[1:]
    source = place / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "maildefer", source / "maildefer", ignore=shutil.ignore_patterns("__pycache__"))
    commands = [
        f"cd {source}; PIP_NO_BUILD_ISOLATION=0 {build.replace('/opt/maildefer/bin/', '').strip()}; mv dist {place}",
        *(f"cd {place}; {line}" for line in deploy.replace("/srv/blog", str(place)).splitlines()),
        f"cd {place}; .venv/bin/pip check; .venv/bin/maildefer --version; .venv/bin/maildefer new blog",
    ]
    for command in commands:
        done = shell(command, wheels)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    found = subprocess.run(
        [place / ".venv/bin/pip", "freeze"], capture_output=True, text=True, check=True
    ).stdout
    names = {canonicalize_name(re.split(r"==| @ ", line)[0]) for line in found.splitlines()}
    assert names == set(versions(BASE)) | {"maildefer"}


@pytest.mark.slow
def test_a_file_that_is_another_than_the_pinned_one_is_refused(place: Path, wheels: Path) -> None:
    others = place / "wheels"
    shutil.copytree(wheels, others)
    [changed] = others.glob("typer-*")
    with open(changed, "ab") as file:
        file.write(b"\0")
    done = shell(
        f"python -m venv {place}/.venv; {place}/.venv/bin/pip install --require-hashes -r {place}/conf/deploy/{BASE}",
        others,
    )
    assert done.returncode != 0
    assert "DO NOT MATCH" in done.stderr
