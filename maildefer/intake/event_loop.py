"""The event loop: uvloop where it is installed (`maildefer[uvloop]`), else asyncio's, without ssl where it can."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any

_UVLOOP = "uvloop"


def leave_out_ssl() -> None:
    """For a process without TLS, before its first import of asyncio, which takes ssl along where it finds it: 4 MB.

    uvloop does not come without it.
    """
    if find_spec(_UVLOOP) is None:
        sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # makes `import ssl` an ImportError


def run(main: Coroutine[Any, Any, bool]) -> bool:
    """As `asyncio.run`."""
    import asyncio  # after leave_out_ssl()

    factory = importlib.import_module(_UVLOOP).new_event_loop if find_spec(_UVLOOP) else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
