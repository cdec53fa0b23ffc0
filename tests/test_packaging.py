"""What is installed: from a wheel, from a source distribution, and in place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from maildefer.cli.project_skeleton import write_project
from tests.support.debian import Debian

ROOT = Path(__file__).resolve().parent.parent
WHEELS = ROOT / ".cache/constraints"  # .ci/setup has put them there

pytestmark = pytest.mark.slow

# What a fresh environment must be able to do: find its own files, and write a project from them.
PROBE = """
import importlib.resources, pathlib, sys
import maildefer
from maildefer.cli.project_skeleton import write_project
home = pathlib.Path(maildefer.__file__).parent
assert home.is_relative_to(sys.argv[1]), home
assert (home / "py.typed").is_file()
target = pathlib.Path(sys.argv[2])
for path in write_project(target):
    print(path.relative_to(target))
"""

PROJECT = {
    "conf/__init__.py": "",
    "conf/settings.py": "queues = {'run/queue': ['workers.keep']}\n",
    "workers/__init__.py": "",
    "workers/keep.py": """
from pathlib import Path
from maildefer.routing import route, stateless

@route("(name)@d.example", name=".+")
@stateless
def START(message, name):
    Path("run", name).write_text(message.body())
""",
}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copied(folder: Path) -> Path:
    """What belongs to the project, elsewhere: a build leaves traces beside the sources, which other tests read."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project is not known")
    copy = folder / "maildefer"
    copy.mkdir()
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        if os.path.lexists(ROOT / name):  # a file deleted since is still listed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that is built from it."""
    copy, out = copied(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, cwd=copy)
    return out


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A fresh virtual environment that borrows this one's dependencies, but for maildefer itself."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    # A path, not a site directory: the editable install's own .pth in there isn't followed.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return home


def installed_files(environment: Path, what: Path, tmp_path: Path) -> set[str]:
    python = environment / "bin" / "python"
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
    ]
    run(*pip, "--no-build-isolation", "--ignore-installed", "--no-index", what, cwd=tmp_path)
    assert (environment / "bin" / "maildefer").is_file()
    return set(run(python, "-c", PROBE, environment, tmp_path / "project", cwd=tmp_path).split())


def skeleton_files(tmp_path: Path) -> set[str]:
    target = tmp_path / "expected"
    return {str(path.relative_to(target)) for path in write_project(target)}


def test_the_wheel_carries_the_whole_skeleton(built: Path, environment: Path, tmp_path: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert installed_files(environment, wheel, tmp_path) == skeleton_files(tmp_path)


def test_the_source_distribution_carries_the_whole_skeleton(
    built: Path, environment: Path, tmp_path: Path
) -> None:
    [sdist] = built.glob("*.tar.gz")
    assert installed_files(environment, sdist, tmp_path) == skeleton_files(tmp_path)


def test_the_installation_that_the_readme_shows_works(built: Path, tmp_path: Path) -> None:
    """Each block as it stands, but for the place, and without asking an index: dependencies are borrowed."""
    section = (ROOT / "README.md").read_text().partition("\n## Install\n")[2].partition("\n## ")[0]
    commands = "".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).splitlines()
    assert len(commands) == 6
    commands = [command for command in commands if "/srv/blog" not in command]  # in test_constraints.py
    home = tmp_path / "opt"
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.glob("maildefer-*")
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
    }
    for number, command in enumerate(commands):
        run(
            "env",
            *(f"{k}={v}" for k, v in environ.items()),
            "sh",
            "-ec",
            command.replace("/opt/maildefer", str(home)),
            cwd=source,
        )
        if number == 0:
            [site] = home.glob("lib/python*/site-packages")
            (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        elif "install" in command:
            assert "--help" in run(home / "bin" / "maildefer", "--help", cwd=tmp_path)


def test_the_container_file_installs_the_wheel_and_nothing_the_project_from_an_index() -> None:
    text = (ROOT / "conf/deploy/Containerfile").read_text()
    assert "COPY conf/deploy/constraints.txt dist/maildefer-*.whl /tmp/" in text
    assert "pip install --no-cache-dir --require-hashes -r /tmp/constraints.txt" in text
    assert "pip install --no-cache-dir --no-deps --no-index /tmp/maildefer-*.whl" in text
    pages = [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *(ROOT / "maildefer/skeleton").rglob("*.md"),
        *(ROOT / "conf/deploy").rglob("*.*"),
    ]
    by_name = re.compile(r"pip3? install[^\n]*[ '\"]maildefer(?![-/*\w.])")
    assert [str(page) for page in pages if by_name.search(page.read_text())] == []


def test_a_build_elsewhere_at_another_time_and_under_another_umask_gives_the_same_bytes(
    built: Path, tmp_path: Path
) -> None:
    """The wheel comes straight from the sources here, and from the source distribution there."""
    copy = copied(tmp_path)
    for path in copy.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1e9, 1e9))
    build = f"umask 077; {sys.executable} -m build --no-isolation --sdist --wheel --outdir ../dist"
    run("sh", "-c", build, cwd=copy)
    first = {path.name: path.read_bytes() for path in built.iterdir()}
    again = {path.name: path.read_bytes() for path in (tmp_path / "dist").iterdir()}
    assert sorted(path.rpartition(".")[2] for path in first) == ["gz", "whl"]
    assert [name for name in first | again if first.get(name) != again.get(name)] == []


def test_a_build_is_of_the_time_that_source_date_epoch_says(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "maildefer").mkdir(parents=True)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("__init__.py", "version.py"):
        shutil.copy(ROOT / "maildefer" / name, source / "maildefer")
    build = f"SOURCE_DATE_EPOCH=1000000000 {sys.executable} -m build --no-isolation --outdir ../dist"
    run("sh", "-c", build, cwd=source)
    [wheel, sdist] = sorted((tmp_path / "dist").iterdir())
    with tarfile.open(sdist) as archive:
        assert {member.mtime for member in archive} == {1_000_000_000}
    times = {info.date_time for info in zipfile.ZipFile(wheel).infolist()}
    assert times == {(2001, 9, 9, 1, 46, 40)}


def test_an_index_takes_what_is_built(built: Path) -> None:
    told = run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *built.iterdir(), cwd=built)
    assert told.count("PASSED") == 2, told


@pytest.mark.parametrize("version", ["3.11", "3.13"])
def test_the_installed_wheel_takes_and_handles_mail(version: str, built: Path, tmp_path: Path) -> None:
    """On the oldest Python that will do and the newest, each with what is pinned for deployments."""
    home = tmp_path / "venv"
    run(_python(version), "-m", "venv", "--without-pip", home, cwd=tmp_path)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", home / "bin/python", "install"]
    pip += ["--quiet", "--no-compile", "--no-index"]
    pinned: list[str | Path] = ["--require-hashes", "-r", ROOT / "conf/deploy/constraints.txt"]
    run(*pip, "--find-links", WHEELS, *pinned, cwd=tmp_path)
    run(*pip, "--no-deps", *built.glob("*.whl"), cwd=tmp_path)
    maildefer, project = home / "bin/maildefer", tmp_path / "project"
    _write_project(project)
    push = f"printf 'Subject: x\\n\\nIt works.\\n' | {maildefer} push run/queue --recipient ann@d.example"
    run("sh", "-ec", push, cwd=project)
    run(maildefer, "supervise", "--workers", "2", "--drain", cwd=project)
    assert (project / "run/ann").read_text() == "It works.\n"
    assert run(maildefer, "queue", "list", "run/queue", cwd=project) == ""
    assert "maildefer status --json" in run(maildefer, "status", "--json-schema", cwd=project)


def _write_project(folder: Path) -> None:
    for name, text in PROJECT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _python(version: str) -> str:
    if not any(WHEELS.glob("*.whl")):
        pytest.skip("the pinned packages are not here: make test-packages")
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None or subprocess.run([found, "-c", "import venv"], capture_output=True).returncode != 0:
        pytest.skip(f"Python {version} is not here")
    if not any(WHEELS.glob(f"*-cp{version.replace('.', '')}-*.whl")):
        pytest.skip(f"the pinned packages for Python {version} are not here: make test-packages")
    return found


def test_the_steps_of_the_container_file_make_a_debian_that_drains_a_hundred_messages(
    built: Path, tmp_path: Path
) -> None:
    _python("3.13")
    context = tmp_path / "project"
    _write_project(context)
    shutil.copytree(ROOT / "conf/deploy", context / "conf/deploy")
    (context / "dist").mkdir()
    shutil.copy(next(built.glob("*.whl")), context / "dist")
    debian = Debian.make(tmp_path / "debian", WHEELS)
    debian.follow(context / "conf/deploy/Containerfile", context)
    push = "queue.push('Subject: x\\n\\n', recipient=f'n{n}@d.example')"
    debian.run(
        f"python -c \"from maildefer import Queue; queue = Queue('run/queue'); [{push} for n in range(100)]\""
    )
    debian.run(" ".join([*debian.command, "--drain"]))
    assert len(list((tmp_path / "debian/srv/blog/run").glob("n*"))) == 100
    assert debian.run("maildefer queue list run/queue") == ""
    assert debian.run("id -un; pwd").split() == ["maildefer", "/srv/blog"]


def test_only_maildefer_is_installed(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"maildefer"}
    assert not [name for name in names if "__pycache__" in name]
    assert [name for name in names if name.endswith(("licenses/LICENSE", "dist-info/LICENSE"))]


def test_the_source_distribution_can_be_tested(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "setup.cfg",
        "Makefile",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        ".ci/setup",
        "tests/test_packaging.py",
        "workers/posting.py",
    } <= names
    assert not [name for name in names if name.startswith(("run/", ".venv/", ".cache/"))]


def test_the_version_stands_in_one_place() -> None:
    from importlib.metadata import version

    from maildefer.version import VERSION

    assert version("maildefer") == VERSION
