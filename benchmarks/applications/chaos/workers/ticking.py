"""A periodic task, which counts its calls."""

from __future__ import annotations

import os

from maildefer.tasks import task


@task(every=1, catch_up="all")
def tick() -> None:
    descriptor = os.open("ticks", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, b".")
    finally:
        os.close(descriptor)
