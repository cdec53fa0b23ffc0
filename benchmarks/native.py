"""Programs that are not Python: C contenders compiled on demand, and Postfix's smtp-source and smtp-sink."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.places import CACHE, CONTENDERS, Unavailable


def compiled(name: str) -> str:
    """The path of `contenders/NAME.c` as a program, compiled if it is older than its source."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    source, program = CONTENDERS / f"{name}.c", CACHE / name
    if compiler is None:
        raise Unavailable(f"no C compiler for {source.name}: apt-get install gcc libc6-dev")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = f"{program}.{os.getpid()}"
        subprocess.run([compiler, "-O2", "-Wall", "-pthread", "-o", fresh, str(source)], check=True)
        os.replace(fresh, program)
    return str(program)


def postfix_program(name: str) -> tuple[str, dict[str, str]]:
    """Postfix's load generator `smtp-source`, or its `smtp-sink`, and the environment that it needs.

    Debian's package is unpacked into the cache, not installed: nothing is configured and no mail server starts.
    """
    if installed := shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin"):
        return installed, dict(os.environ)
    unpacked = CACHE / "postfix"
    program = unpacked / "usr/sbin" / name
    if not program.exists():
        _unpack_postfix(unpacked)
    return str(program), os.environ | {"LD_LIBRARY_PATH": str(unpacked / "usr/lib/postfix")}


def _unpack_postfix(target: Path) -> None:
    download = CACHE / "apt"
    download.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "postfix"], cwd=download, check=True, capture_output=True)
        package = max(download.glob("postfix_*.deb"), key=lambda path: path.stat().st_mtime)
        subprocess.run(["dpkg", "-x", str(package), str(target)], check=True, capture_output=True)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        raise Unavailable(
            f"no smtp-source and smtp-sink, and postfix can't be fetched ({error}): apt-get install postfix"
        ) from error
