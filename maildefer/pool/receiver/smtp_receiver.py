"""A front end in a boot module: its sockets are bound here, and given to an intake process."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from maildefer.errors import MaildeferError
from maildefer.handling import handler_marks, undeliverable
from maildefer.handling.handler_check import check
from maildefer.handling.project.finder import is_project
from maildefer.handling.project.queue_paths import located, queue_at
from maildefer.handling.project.settings import loaded_settings, project
from maildefer.handling.routes import Router
from maildefer.intake import settings
from maildefer.message.request import MailRequest
from maildefer.message.smtp_error import SMTPError
from maildefer.pool.frontend import listeners
from maildefer.pool.frontend.launcher import IntakeLauncher
from maildefer.pool.probe import Probe
from maildefer.pool.receiver.receiver import QueueReceiver, router

LOG = logging.getLogger("maildefer.receiver")
_LOOK_SECONDS = 0.5
_SOUND_SECONDS = 5.0  # an intake process that lived so long is worth another


class SMTPReceiver:
    """Takes mail by SMTP into `queue`; listens once constructed (port 0: any), serves from `start()` to `close()`.

    It only enqueues. If routes are loaded in this process (`Router.load`), a `QueueReceiver` in a thread also handles
    what it took, so that a single process does both; if not, somebody else does (`maildefer supervise`), and a probe
    of the project's settings tells which recipients there are. A subclass's `process_message` gets all messages in the
    handlers' place; what it returns, an SMTP reply, then decides.

    `socket` or `listen` come in the place of host and port: a socket file's path, or addresses as `receiver_config` has
    them, such as `smtps://0.0.0.0:465` or `smtp:systemd`. `options` are the intake process's: hostname, user and group
    that it becomes, `environment` (variables that its policy needs), and the other settings of
    `maildefer.intake.options`.
    Raises ConfigurationError for an address in use, QueueError's kinds, TypeError for an unknown option.
    """

    lmtp: ClassVar[bool] = False

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8825,
        *,
        queue: str = "run/queue",
        socket: str | None = None,
        listen: str | Sequence[str] | None = None,
        socket_mode: str | int | None = None,
        **options: Any,
    ) -> None:
        known = settings.OPTIONS | {settings.ENVIRONMENT}
        if unknown := options.keys() - known:
            raise TypeError(
                f"unknown options {', '.join(sorted(unknown))}: there are {', '.join(sorted(known))}"
            )
        variables = settings.environment(options)
        said = {"host": host, "port": port, "socket": socket, "listen": listen, "lmtp": self.lmtp}
        mode = settings.socket_mode({"socket_mode": socket_mode})
        self.queue_dir = queue
        self._layout = queue_at(queue)
        self._listeners = listeners.listen(settings.addresses(said), folder=project(), mode=mode)
        name = self._listeners[0].socket.getsockname()
        self.host: str = host if isinstance(name, tuple) else name
        self.port: int = name[1] if isinstance(name, tuple) else 0
        self._launcher = IntakeLauncher(
            self._listeners, self._layout.path, settings.arguments(options), variables
        )
        self._queue_receiver: QueueReceiver | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def _process(self) -> subprocess.Popen[bytes] | None:
        return self._launcher.process

    @property
    def runs_handlers(self) -> bool:
        """Whether it handles in this process what it takes, as far as is known before it starts."""
        return bool(Router.table()) or self._own_process_message() is not None

    def start(self) -> None:
        """Serve, and return once connections are taken. Raises ConfigurationError for a broken application."""
        check(Router.table())
        self._write_routes()
        self._launcher.execute()
        self._launcher.await_ready()
        replaced = self._own_process_message()
        if Router.table() or replaced is not None:
            self._queue_receiver = QueueReceiver(self.queue_dir)
            if replaced is not None:
                self._queue_receiver.process_message = replaced  # type: ignore[method-assign]
            self._queue_receiver.reloaded = self.reload
            self._thread = threading.Thread(target=self._handle_queue, name="receiver", daemon=True)
            self._thread.start()
        if self._closed.is_set():  # by a signal's handler, or another thread, meanwhile
            self.close()

    def reload(self) -> None:
        """Tell the intake process of the routes of now, and let it read its certificate and its passwords again."""
        self._write_routes()
        self._launcher.reload()

    def status(self) -> dict[str, Any]:
        """What `maildefer status` shows of it."""
        return {"front_ends": [self._launcher.facts()]}

    def ended(self) -> int | None:
        """None while it serves; else the code of an intake process that ended too soon for another to make sense."""
        if self._closed.is_set() or self._process is None:
            return 0
        code = self._process.poll()
        if code is None:
            return None if self._thread is None or self._thread.is_alive() else 1
        if time.monotonic() - self._launcher.began < _SOUND_SECONDS:
            return code or 1
        LOG.error("the intake process ended with %s; another takes its place", code)
        self._launcher.execute()
        return None

    def serve_forever(self) -> None:
        """`start`, then stay until `close()` is called in a signal handler or another thread."""
        self.start()
        while not self._closed.wait(_LOOK_SECONDS):
            if code := self.ended():
                raise MaildeferError(f"the process that takes mail ended with {code}: see its log above")

    def close(self) -> None:
        """Stop listening, finish the transactions and messages in hand. May be called twice."""
        self._closed.set()
        for listener in self._listeners:
            listener.socket.close()
        self._launcher.close()
        if self._queue_receiver is not None:
            self._queue_receiver.close()
        if self._thread is not None:
            self._thread.join()

    def process_message(self, Peer: Any, From: Any, To: Any, Data: bytes | str, **kwargs: Any) -> str | None:
        """Deliver to the `Router` here and now, as Salmon's receiver does: None, or the text of an `SMTPError`.

        For programs and tests that call it; mail from the network goes through the queue.
        """
        message = MailRequest(Peer, From, To, Data)
        try:
            router().deliver(message)
        except SMTPError as reply:
            return str(reply)
        except Exception as fault:
            LOG.exception("no handler finished a message for %s from %s", To, From)
            if not handler_marks.is_in_undeliverable_queue(fault):
                undeliverable_message(Data, "handler failed")
        return None

    def _own_process_message(self) -> Callable[..., None] | None:
        """Make a function that calls the `process_message` of a subclass or program; None where it is our own."""
        chosen = self.process_message
        if getattr(chosen, "__func__", None) is SMTPReceiver.process_message:
            return None

        def process_message(msg: Any) -> None:
            reply = chosen(msg.Peer, msg.From, [msg.To], msg.Data)
            if (
                reply and (code := str(reply)[:3]).isdecimal()
            ):  # a client that waits would have had this reply
                raise SMTPError(int(code), str(reply)[4:])

        return process_message

    def _handle_queue(self) -> None:
        assert self._queue_receiver is not None
        try:
            self._queue_receiver.start()
        except MaildeferError:
            LOG.exception("the messages that were taken are not being handled")

    def _write_routes(self) -> None:
        patterns = self._patterns()
        if patterns is not None:
            self._launcher.write_routes(patterns)

    def _patterns(self) -> list[str] | None:
        """The patterns of the routes loaded here, else of a probe of this queue; None to accept every recipient."""
        if table := Router.table():
            return [pattern.pattern for pattern, _ in table]
        if self._own_process_message() is not None or (loaded_settings() is None and not is_project()):
            return None
        routes = Probe(project()).wait().routes
        ours = [route.pattern for route in routes if located(route.queue) == self._layout.path]
        return ours or None


class LMTPReceiver(SMTPReceiver):
    """The same by LMTP, also on a socket file: `LMTPReceiver(socket="run/lmtp")`."""

    lmtp = True

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8824,
        socket: str | None = None,
        *,
        queue: str = "run/queue",
        **options: Any,
    ) -> None:
        super().__init__(host, port, queue=queue, socket=socket, **options)


def undeliverable_message(raw: bytes | str, failure_type: str) -> None:
    """Push the raw message to `Router.UNDELIVERABLE_QUEUE`, if one is set."""
    kept_in = router().UNDELIVERABLE_QUEUE
    if kept_in is not None:
        undeliverable.push(kept_in, raw, failure_type)
        LOG.error("undeliverable (%s): kept", failure_type)
