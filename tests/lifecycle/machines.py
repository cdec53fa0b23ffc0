"""Several machines on one: each with a boot id of its own, and blind to the others' processes."""

from __future__ import annotations

import os

from tests.lifecycle.pool import ROOT
from tests.lifecycle.project import Project

_SITE = """
import os, time
from maildefer.host import identity

boot, up = os.environ["BOOT"], os.environ["UP_SECONDS"]
_line, _alive, _clock = identity._line, identity.is_alive, time.clock_gettime
shift = _clock(time.CLOCK_BOOTTIME) - float(up) if up else 0.0

def alive(pid, start_time):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"BOOT={boot}".encode() in file.read().split(bytes(1)) and _alive(pid, start_time)
    except OSError:
        return False

identity._line = lambda path: boot if path.endswith("boot_id") else _line(path)
identity.is_alive = alive
time.clock_gettime = lambda clock: _clock(clock) - (shift if clock == time.CLOCK_BOOTTIME else 0.0)
"""


def machine(project: Project, name: str, up_seconds: float | None = None) -> dict[str, str]:
    """The environment of a process on that machine; for a short command, it has been up for so long only."""
    folder = project.path / "machines"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE)
    up = "" if up_seconds is None else f"{up_seconds:g}"
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "BOOT": f"boot-{name}", "UP_SECONDS": up}
