"""A front end in a boot module: the socket is bound here and given to an intake process, executed anew (I11)."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.handling import marks
from maildefer.handling.finding import is_project
from maildefer.handling.routes import Router
from maildefer.handling.settings import loaded_settings
from maildefer.intake import limits
from maildefer.maildir.layout import create_queue
from maildefer.message.request import MailRequest
from maildefer.message.smtp_error import SMTPError
from maildefer.pool.probing import Probe
from maildefer.pool.receiver import QueueReceiver

LOG = logging.getLogger("maildefer.receiver")
_BACKLOG = 512
_START_SECONDS = 30.0
_LOOK_SECONDS = 0.5
_END_SECONDS = 15.0
_SOUND_SECONDS = 5.0  # an intake process that lived so long is worth another
_LIMITS = {"hostname", "user", "group", *limits.NAMES}


class SMTPReceiver:
    """Takes mail by SMTP into `queue`; listens once constructed (port 0: any), serves from `start()` to `close()`.

    It only enqueues. If routes are loaded in this process (`Router.load`), a `QueueReceiver` in a thread also handles
    what it took, so that a single process does both; if not, somebody else does (`maildefer supervise`), and a probe
    of the project's settings tells which recipients there are. A subclass's `process_message` gets all messages in the
    handlers' place; what it returns, an SMTP reply, then decides. `limits` are options of the intake process:
    hostname, user and group that it becomes, and those of `maildefer.intake.limits`.
    Raises ConfigurationError for an address in use, QueueError's kinds.
    """

    lmtp: ClassVar[bool] = False
    _socket: socket.socket

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8825,
        *,
        queue: str = "run/queue",
        **limits: Any,
    ) -> None:
        self.host = host
        self._prepare(queue, limits)
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]

    def _prepare(self, queue: str, limits: dict[str, Any]) -> None:
        if unknown := limits.keys() - _LIMITS:
            raise TypeError(
                f"unknown limits {', '.join(sorted(unknown))}: there are {', '.join(sorted(_LIMITS))}"
            )
        self.queue_dir = queue
        self._limits = limits
        self._layout = create_queue(queue)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._routes: int | None = None  # a file in memory, which the child reads again at HUP
        self._lifeline: int | None = None
        self._handling: QueueReceiver | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Serve, and return once somebody answers on the socket. Raises ConfigurationError for a broken application."""
        self._write_routes()
        self._execute()
        self._await_greeting()
        replaced = self._replaced()
        if Router.table() or replaced is not None:
            self._handling = QueueReceiver(self.queue_dir)
            if replaced is not None:
                self._handling.process_message = replaced  # type: ignore[method-assign]
            self._handling.reloaded = self.reload
            self._thread = threading.Thread(target=self._handle, name="receiver", daemon=True)
            self._thread.start()

    def reload(self) -> None:
        """Tell the intake process of the routes of now."""
        self._write_routes()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def ended(self) -> int | None:
        """None while it serves; else the code of an intake process that ended too soon for another to make sense."""
        if self._closed.is_set() or self._process is None:
            return 0
        code = self._process.poll()
        if code is None:
            return None if self._thread is None or self._thread.is_alive() else 1
        if time.monotonic() - self._began < _SOUND_SECONDS:
            return code or 1
        LOG.error("the intake process ended with %s; another takes its place", code)
        self._execute()
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
        self._socket.close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._handling is not None:
            self._handling.close()
        if self._thread is not None:
            self._thread.join()
        for descriptor in (self._routes, self._lifeline):
            if descriptor is not None:
                os.close(descriptor)
        self._routes = self._lifeline = None

    def process_message(self, Peer: Any, From: Any, To: Any, Data: bytes | str, **kwargs: Any) -> str | None:
        """Deliver to the `Router` here and now, as Salmon's receiver does: None, or the text of an `SMTPError`.

        For programs and tests that call it; mail from the network goes through the queue.
        """
        message = MailRequest(Peer, From, To, Data)
        try:
            Router.deliver(message)
        except SMTPError as reply:
            return str(reply)
        except Exception as fault:
            LOG.exception("no handler finished a message for %s from %s", To, From)
            if not marks.is_kept(fault):
                undeliverable_message(Data, "handler failed")
        return None

    def _replaced(self) -> Callable[..., None] | None:
        """What calls the `process_message` that a subclass, or somebody, has put in the place of ours."""
        chosen = self.process_message
        if getattr(chosen, "__func__", None) is SMTPReceiver.process_message:
            return None

        def process_message(msg: Any) -> None:
            reply = chosen(msg.Peer, msg.From, [msg.To], msg.Data)
            if reply and (code := str(reply)[:3]).isdecimal():  # a client who waits would have been told
                raise SMTPError(int(code), str(reply)[4:])

        return process_message

    def _handle(self) -> None:
        assert self._handling is not None
        try:
            self._handling.start()
        except MaildeferError:
            LOG.exception("the messages that were taken are not being handled")

    def _execute(self) -> None:
        theirs, lifeline = os.pipe2(os.O_CLOEXEC)
        listener = self._socket.fileno()
        command = [sys.executable, "-m", "maildefer.intake", "--socket-fd", str(listener)]
        command += ["--queue", self._layout.path, "--lifeline-fd", str(theirs)]
        inherited = [listener, theirs]
        if self._routes is not None:
            command += ["--routes", f"/proc/self/fd/{self._routes}"]
            inherited.append(self._routes)
        for name, value in self._limits.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        if self.lmtp:
            command.append("--lmtp")
        self._process = subprocess.Popen(command, pass_fds=inherited, stdin=subprocess.DEVNULL)
        os.close(theirs)
        if self._lifeline is not None:
            os.close(self._lifeline)
        self._lifeline = lifeline
        self._began = time.monotonic()

    def _write_routes(self) -> None:
        patterns = self._patterns()
        if patterns is None:
            return
        if self._routes is None:
            self._routes = os.memfd_create("routes")
        data = json.dumps({"routes": [{"pattern": pattern} for pattern in patterns]}).encode()
        os.ftruncate(self._routes, 0)
        os.pwrite(self._routes, data, 0)

    def _patterns(self) -> list[str] | None:
        """What is loaded here; else what a probe says of this queue; None where nothing is said of it."""
        if table := Router.table():
            return [pattern.pattern for pattern, _ in table]
        if loaded_settings() is None and not is_project():
            return None
        routes = Probe(os.getcwd()).wait()["routes"]
        ours = [route["pattern"] for route in routes if os.path.abspath(route["queue"]) == self._layout.path]
        return ours or None

    def _await_greeting(self) -> None:
        """The socket takes connections from the start; a greeting tells that somebody answers them."""
        deadline = time.monotonic() + _START_SECONDS
        with socket.socket(self._socket.family) as client:
            client.settimeout(0.2)
            client.connect(self._socket.getsockname())
            while time.monotonic() < deadline:
                try:
                    if client.recv(4):
                        return
                except TimeoutError:
                    if (code := self.ended()) is not None:
                        raise MaildeferError(f"the process that takes mail ended with {code}") from None
        raise MaildeferError(f"the process that takes mail did not answer within {_START_SECONDS:.0f} s")


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
        **limits: Any,
    ) -> None:
        if socket is None:
            super().__init__(host, port, queue=queue, **limits)
            return
        self.host, self.port = socket, 0
        self._prepare(queue, limits)
        self._socket = _bound_file(socket)


def undeliverable_message(raw: bytes | str, failure_type: str) -> None:
    """Push the raw message to `Router.UNDELIVERABLE_QUEUE`, if one is set."""
    if Router.UNDELIVERABLE_QUEUE is not None:
        key = Router.UNDELIVERABLE_QUEUE.push(raw)
        LOG.error("undeliverable (%s): kept as %s", failure_type, key)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as fault:
        raise ConfigurationError(
            f"can't listen on {host}:{port}: {fault.strerror or fault}: stop what does, or choose another port"
        ) from fault


def _bound_file(path: str) -> socket.socket:
    """A file that nobody listens on any more is replaced."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(path) == 0:
                raise OSError("somebody listens there")
        if os.path.exists(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as fault:
        listener.close()
        raise ConfigurationError(
            f"can't listen on {path}: {fault.strerror or fault}: stop what does, or choose another path"
        ) from fault
    return listener
