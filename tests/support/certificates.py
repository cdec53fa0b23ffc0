"""Certificates for tests, made by openssl, and the skip where that is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CI = os.environ.get("CI") == "true"


def need(program: str, package: str = "") -> str:
    """Its path. Skips the test where it is missing; but fails it in CI, where everything has to be there."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        (pytest.fail if CI else pytest.skip)(f"{program} is missing: apt-get install {package or program}")
    return path


def make(folder: Path, name: str = "localhost") -> Path:
    """A self-signed certificate and its key in one PEM file."""
    path = folder / f"{name}.pem"
    command = [
        need("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"]
    made = subprocess.run([*command, "-keyout", "-"], capture_output=True, check=True, timeout=60)
    path.write_bytes(made.stdout)
    path.chmod(0o600)
    return path
