"""How an intake process begins: its file descriptors, the signals that may come early, and its event loop.

Imported before asyncio, which takes ssl along: 4 MB that a process without a certificate does without.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any, Final

from maildefer import events
from maildefer.host.linux import rlimits

EARLY_SIGNALS: Final = (signal.SIGHUP, signal.SIGUSR1)
"""Signals that the starter of the process blocks, so that they wait: else a reload would end it as it starts."""
_OTHER_DESCRIPTORS: Final = 200  # sockets, pipes, policies; and connections that are just being refused
_UVLOOP: Final = "uvloop"


def raise_descriptor_limit(max_connections: int) -> None:
    """Allow a descriptor for each connection, where 1,024 are usual; log it where the hard limit is too low."""
    wanted = max_connections + _OTHER_DESCRIPTORS
    if (allowed := rlimits.allow_descriptors(wanted)) < wanted:
        events.emit(
            "intake.cramped",
            reason=f"{allowed} descriptors, and max_connections is {max_connections}: raise the hard limit "
            f"to {wanted} (ulimit -Hn, LimitNOFILE=), or lower max_connections",
        )


def ensure_no_new_privileges() -> None:
    """See to it that no program that this process executes gains rights, where its starter has not done so already."""
    with open("/proc/self/status", "rb") as facts:
        if b"\nNoNewPrivs:\t1\n" in facts.read():
            return
    from maildefer.host.linux import prctl  # ctypes, which a pool's front ends do without

    prctl.set_no_new_privileges()


def unblock_early_signals() -> None:
    """Unblock the early signals; called once handlers for them are installed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EARLY_SIGNALS)


def leave_out_ssl() -> None:
    """Make `import ssl` fail, in a process without TLS; called before its first import of asyncio.

    Does nothing where uvloop is installed, which needs ssl.
    """
    if find_spec(_UVLOOP) is None:
        sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # which makes the import an ImportError


def run(main: Coroutine[Any, Any, bool]) -> bool:
    """Run it as `asyncio.run` does; by uvloop where it is installed (`maildefer[uvloop]`)."""
    import asyncio  # after leave_out_ssl()

    factory = importlib.import_module(_UVLOOP).new_event_loop if find_spec(_UVLOOP) else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
