"""A counter for each sender, read and written as a careless handler would."""

from __future__ import annotations

import os
import time
from typing import Any

from workers.journal import note


def count(message: Any, what: str, argument: str) -> None:
    """Read, take one's time, write one more: of two at a time, one is lost."""
    note("start", message)
    path = f"count-{message.From}"
    before = int(open(path).read()) if os.path.exists(path) else 0
    if what == "wait":
        while not os.path.exists("go"):
            time.sleep(0.005)
    elif what == "sleep":
        time.sleep(float(argument))
    with open(f"{path}-{os.getpid()}", "w") as file:
        file.write(str(before + 1))
    os.rename(f"{path}-{os.getpid()}", path)
    note("end", message)
