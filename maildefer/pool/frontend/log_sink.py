"""The receiver of `maildefer log`: an intake process on a socket that is bound here (I11)."""

from __future__ import annotations

from maildefer.intake.options import SocketProtocol
from maildefer.maildir.layout import create_queue
from maildefer.pool.frontend.launcher import IntakeLauncher
from maildefer.pool.frontend.listeners import SmtpListener, bound


class LogSink:
    """Keeps all mail in a queue that nothing serves. Listens once constructed; `start` returns, `close` ends it.

    Raises QueueError's kinds, and ConfigurationError for an address in use.
    """

    runs_handlers = False

    def __init__(self, host: str, port: int, queue: str) -> None:
        self.queue_dir = create_queue(queue).path
        self._socket = bound(host, port)
        self.launcher = IntakeLauncher([SmtpListener(self._socket, SocketProtocol.SMTP)], self.queue_dir)

    def start(self) -> None:
        """Return once connections are taken. Raises MaildeferError when the process does not come up."""
        self.launcher.execute()
        self.launcher.await_ready()

    def ended(self) -> int | None:
        """The exit code of the intake process if it has one already."""
        return self.launcher.ended()

    def close(self) -> None:
        self.launcher.close()
        self._socket.close()
