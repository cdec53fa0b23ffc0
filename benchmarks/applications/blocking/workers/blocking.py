"""A handler that hangs in its worker, for mail to block@, until the benchmark kills it.

Any later attempt, or another host than "a", returns at once.
"""

from __future__ import annotations

import os
import signal
import time

from maildefer.mail import MailRequest
from maildefer.routing import route, stateless

NOTES = os.open(os.environ["BENCHMARK_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
BLOCKS = os.environ.get("MAILDEFER_HOST_ID", "a") == "a"


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message: MailRequest, name: str = "", host: str = "") -> None:
    """One line: key, pid, nanoseconds of the monotonic clock. Then the first attempt at block@ never ends."""
    now_ns = time.monotonic_ns()
    os.write(NOTES, f"{message.key} {os.getpid()} {now_ns}\n".encode())
    while BLOCKS and name == "block" and message.attempt == 1:
        signal.pause()
