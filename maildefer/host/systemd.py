"""Notes to systemd, or to another service manager that set NOTIFY_SOCKET: sd_notify(3) without libsystemd.

Nothing here ever blocks or raises: a full or vanished socket must not stop the mail.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends states to the service manager; does nothing where there is none. One process at a time uses it."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._status = ""

    @property
    def enabled(self) -> bool:
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        return self._send("READY=1", status)

    def stopping(self, status: str = "") -> bool:
        return self._send("STOPPING=1", status)

    def reloading(self) -> bool:
        """Report that a reload begins; `ready()` reports its end, for which `Type=notify-reload` waits."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={now}", "")

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1", "")

    def status(self, text: str) -> bool:
        """A line for `systemctl status`; the same one again is not sent."""
        if text == self._status:
            return True
        return self._send("", text)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, state: str, status: str) -> bool:
        if self._address is None:
            return False
        lines = [state] if state else []
        if status:
            self._status = status
            lines.append("STATUS=" + status.replace("\n", " "))
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            data = "\n".join(lines).encode("utf-8", "backslashreplace")
            self._socket.sendto(data, socket.MSG_NOSIGNAL, self._address)
        except OSError:
            self._status = ""  # unsent, so to be sent when it comes again
            return False
        return True


def _address(text: str) -> bytes | None:
    if text.startswith("@"):  # an abstract socket
        return b"\0" + os.fsencode(text[1:])
    return os.fsencode(text) if text.startswith("/") else None
