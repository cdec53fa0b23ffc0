"""Notes when a message's handler began."""

from __future__ import annotations

import os
import time

from maildefer.mail import MailRequest
from maildefer.routing import route, stateless

NOTES = os.open(os.environ["BENCHMARK_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


@route("(name)@osb\\.(host)", name=".+", host=".+")
@stateless
def START(message: MailRequest, name: str = "", host: str = "") -> None:
    """One line: key, pid, nanoseconds of the monotonic clock."""
    now_ns = time.monotonic_ns()
    os.write(NOTES, f"{message.key} {os.getpid()} {now_ns}\n".encode())
