"""A container file's steps in a fresh Debian: what a container engine does with them, where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path("/etc/apt/sources.list.d/debian.sources")  # where this machine has its packages from
_ENTER = """
mount --make-rprivate /
mount --rbind /dev "$ROOT/dev"
mount -t tmpfs none "$ROOT/dev/shm"
mount -t proc none "$ROOT/proc"
mount --bind "$WHEELS" "$ROOT/wheels"
exec chroot "$ROOT" "$@"
"""


class Debian:
    """A file system with Python, and the state that a container file's steps leave: user, folder, variables, command.

    `pip` takes what it installs from `wheels` alone; no step has a network.
    """

    def __init__(self, root: Path, wheels: Path) -> None:
        self._root, self._wheels = root, wheels
        self._user, self._folder = "root", "/"
        self._environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/wheels",
        }
        self.command: list[str] = []

    @classmethod
    def make(cls, root: Path, wheels: Path) -> Debian:
        """Skips the test where this can't be: not root, no mmdebstrap, no packages to be had."""
        if os.geteuid() != 0 or shutil.which("mmdebstrap") is None or not SOURCES.exists():
            pytest.skip("it takes root, Debian's sources and mmdebstrap: apt-get install mmdebstrap")
        release = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
        assert release is not None
        packages = "--include=python3,python3-venv,passwd"
        made = subprocess.run(
            [
                "mmdebstrap",
                "--variant=essential",
                "--dpkgopt=force-unsafe-io",
                packages,
                release[1],
                root,
                SOURCES,
            ],
            capture_output=True,
            text=True,
            timeout=400,
        )
        if made.returncode != 0:
            pytest.skip(f"no Debian is to be had here: {made.stderr[-400:]}")
        debian = cls(root, wheels)
        (root / "wheels").mkdir()
        debian.run("python3 -m venv /usr/local")  # for the `pip` and `python` of a Python image
        return debian

    def follow(self, container_file: Path, context: Path) -> None:
        """Carry out its steps after the first, FROM."""
        text = re.sub(r"^#.*\n", "", container_file.read_text(), flags=re.MULTILINE)
        for line in text.replace("\\\n", " ").splitlines():
            step, _, rest = line.partition(" ")
            match step:
                case "FROM" | "VOLUME":
                    pass
                case "COPY":
                    self._copy(rest.split(), context)
                case "RUN":
                    self.run(rest)
                case "WORKDIR":
                    self._folder = rest
                    (self._root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    self._user = rest
                case "ENV":
                    self._environ |= dict(word.split("=", 1) for word in rest.split())
                case "CMD":
                    self.command = json.loads(rest)
                case _:
                    raise AssertionError(f"a step that is not known here: {line}")

    def run(self, script: str) -> str:
        """What a shell prints, as the user and in the folder that the steps have left."""
        done = subprocess.run(
            [
                *"unshare --mount --pid --fork --kill-child --net sh -euc".split(),
                _ENTER,
                "sh",
                *("env", "-i", *(f"{name}={value}" for name, value in self._environ.items())),
                *f"setpriv --reuid={self._user} --regid={self._user} --init-groups sh -euc".split(),
                f"cd {self._folder}; {script}",
            ],
            env={**os.environ, "ROOT": str(self._root), "WHEELS": str(self._wheels)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def _copy(self, words: list[str], context: Path) -> None:
        *sources, target = words
        place = self._root / os.path.join(self._folder, target).lstrip("/")
        for source in sources:
            found = list(context.glob(source))
            assert found, f"COPY {source}: nothing is called so"
            for path in found:
                if path.is_dir():
                    shutil.copytree(path, place, dirs_exist_ok=True)
                else:
                    place.mkdir(exist_ok=True)
                    shutil.copy(path, place)
