#!/usr/bin/env python3
"""Write conf/deploy/constraints*.txt anew: what maildefer needs, at its newest, each file of it by its hash.

`make constraints`. uv resolves for all versions of Python at once, in an environment of its own under .cache/.
Of each package's files those are taken that Linux on x86_64 and aarch64 installs, and the source distribution.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
EXTRAS = ("mx", "uvloop", "web")
_WHEEL = re.compile(r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl$")
_LINUX = re.compile(r"(many|musl)?linux(_\d+_\d+|\d*)_(x86_64|aarch64)")
_HEADER = """\
# What maildefer needs{with_extras}, for Linux and Python {first} to {last}: made by `make constraints`.
#   pip install --require-hashes -r {name}
# maildefer itself is not in it: install its wheel afterwards, with --no-deps --no-index.
"""


def main() -> None:
    uv = _uv()
    for name, extras in (("constraints.txt", ()), ("constraints-extras.txt", EXTRAS)):
        packages = _resolve(uv, extras)
        text = _HEADER.format(
            name=name,
            with_extras=f", with its extras {', '.join(extras)}" if extras else "",
            first=PYTHONS[0],
            last=PYTHONS[-1],
        )
        (ROOT / "conf/deploy" / name).write_text(text + "".join(map(_lines, packages)))
        print(f"conf/deploy/{name}: {len(packages)} packages")


def _uv() -> Path:
    home = ROOT / ".cache/uv"
    if not (home / "bin/uv").exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    return home / "bin/uv"


def _resolve(uv: Path, extras: tuple[str, ...]) -> list[dict[str, Any]]:
    """The packages of a pylock.toml, but for those that Linux doesn't need."""
    lock = ROOT / ".cache/pylock.toml"
    command: list[str | Path] = [uv, "pip", "compile", "setup.cfg", "--quiet", "--upgrade", "--universal"]
    command += ["--python-version", PYTHONS[0], "--generate-hashes", "--no-header", "--no-annotate"]
    command += [word for extra in extras for word in ("--extra", extra)]
    bundle = "/etc/ssl/certs/ca-certificates.crt"  # what pip trusts, a company's own proxy included
    trusted = {"SSL_CERT_FILE": bundle} if os.path.exists(bundle) else {}
    subprocess.run(
        [*command, "--format", "pylock.toml", "-o", lock], cwd=ROOT, env=trusted | os.environ, check=True
    )
    packages = tomllib.loads(lock.read_text())["packages"]
    return [each for each in packages if "win32" not in each.get("marker", "")]


def _lines(package: dict[str, Any]) -> str:
    files = [wheel for wheel in package.get("wheels", []) if _for_linux(_name(wheel))]
    files += [package["sdist"]] if "sdist" in package else []
    marker = f" ; {package['marker']}" if "marker" in package else ""
    hashes = sorted({f"--hash=sha256:{file['hashes']['sha256']}" for file in files})
    return " \\\n    ".join([f"{package['name']}=={package['version']}{marker}", *hashes]) + "\n"


def _name(file: dict[str, Any]) -> str:
    return str(file.get("name") or file["url"].rpartition("/")[2])


def _for_linux(name: str) -> bool:
    """Whether a wheel is for one of these Pythons there: by PEP 425's tags, each of which may be several."""
    tags = _WHEEL.search(name)
    assert tags is not None, name
    ours = {f"cp{version.replace('.', '')}" for version in PYTHONS} | {"py3"}
    stable = tags["abi"] == "abi3"  # of its Python and all later ones
    if tags["abi"].endswith("t") or not (stable or ours & set(tags["python"].split("."))):
        return False
    return any(each == "any" or _LINUX.fullmatch(each) for each in tags["platform"].split("."))


if __name__ == "__main__":
    main()
