"""Signals that may come before a front end is ready for them: to read its files again, to open its log anew.

Who starts it blocks them for it, and they wait with the kernel; else a reload would end whoever is just starting.
"""

from __future__ import annotations

import signal
from typing import Final

HELD: Final = (signal.SIGHUP, signal.SIGUSR1)


def let_in() -> None:
    """Once there are handlers for them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
