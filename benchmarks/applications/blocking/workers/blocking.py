"""A handler that hangs in its worker until the benchmark kills it; any later attempt, or another host, returns."""

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
    """One line: key, pid, nanoseconds of the monotonic clock. Then the first attempt on host "a" never ends."""
    now_ns = time.monotonic_ns()
    os.write(NOTES, f"{message.key} {os.getpid()} {now_ns}\n".encode())
    while BLOCKS and message.attempt == 1:
        signal.pause()
