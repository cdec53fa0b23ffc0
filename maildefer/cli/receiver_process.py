"""`python -m maildefer.cli.receiver_process ORDERS`: the process behind `maildefer start` and `maildefer log`.

Executed by the command line, so that typer is not in it; it holds the lock of its pid file as long as it lives.
A receiver listens once it is constructed; its `start()` returns, or loops until `close()`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from maildefer import events, logs
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.host import captured_output, pidfile, runtime_dir, status_socket
from maildefer.host.bounded_call import bounded
from maildefer.host.daemonize import READY
from maildefer.host.identity import start_time, this_host
from maildefer.host.linux import descendants, prctl
from maildefer.host.linux.process_title import set_title

if TYPE_CHECKING:
    from maildefer.pool.frontend.monitor_launcher import MonitorLauncher

_DRAIN_SECONDS = 30.0
_LOOPS_SECONDS = 1.0  # a start() that has not returned by then, nor raised, is at work
_LOOK_SECONDS = 0.5


def main(arguments: list[str]) -> int:
    """0 after TERM or INT, 78 for a project or an address that can't be used, 1 for all else."""
    orders = json.loads(arguments[0])
    events.configure()
    try:
        os.set_inheritable(
            orders["lock_fd"], False
        )  # it was the command line's, which has ended or is this process
        runtime_dir.name_holder(orders["lock_fd"])
        return ReceiverService(orders).run()
    except ConfigurationError as error:
        events.write(f"maildefer: {error}\n")
        return 78
    except (MaildeferError, OSError) as error:
        events.write(f"maildefer: {error}\n")
        return 1


class ReceiverService:
    """One receiver from its construction to its end."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        self._orders = dict(orders)
        self._stopping = threading.Event()
        self._receiver: Any = None
        self._returned = False
        self._reloads: dict[str, object] = {"asked": 0, "answered": 0, "refused": None}
        self._reloading = threading.Lock()
        self._processors: Sequence[logs.Processor] = ()
        self._health: Mapping[str, Any] | None = None
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._note)
        signal.signal(signal.SIGHUP, self._note_reload)
        for signum in (signal.SIGUSR1, signal.SIGUSR2):  # whoever rotates logs must not end it
            signal.signal(signum, _leave_it)

    def run(self) -> int:
        if self._orders["kind"] != "log":  # which has no project
            captured_output.capture_here(self._stopping)
        self._receiver = self._construct()
        if self._orders["kind"] != "log":
            level = "debug" if self._orders["debug"] else events.current_level()
            logs.adopt(level.upper(), self._processors)
        self._register()
        try:
            self._become_user()
            monitor = self._launch_monitor()
            self._start()
            self._wait()
            self._receiver.close()
            if monitor is not None:
                monitor.close()
            descendants.end_below(os.getpid())  # what handlers have started, and left behind
        finally:
            self._unregister()
        return 0

    def _construct(self) -> Any:
        orders = self._orders
        if orders["kind"] == "log":
            from maildefer.pool.frontend.log_sink import LogSink  # only for `log`

            set_title("log")
            return LogSink(orders["host"], orders["port"], orders["queue"])
        # These bring the user's own code.
        from maildefer.handling.application import set_up_logging
        from maildefer.handling.project import queue_paths
        from maildefer.handling.project.monitoring_settings import health_address
        from maildefer.handling.project.settings import plain_settings
        from maildefer.utils import import_settings

        queue_paths.in_service = True
        set_title(f"start {orders['boot']}")
        loaded = import_settings(False)
        said = plain_settings(loaded)
        self._health = health_address(loaded, os.environ)
        events.configure(said.get("log_format"), level=said.get("log_level"))
        self._processors = set_up_logging(loaded)
        settings = import_settings(True, orders["boot"])
        receiver = getattr(settings, "receiver", None)
        if receiver is None:
            raise ConfigurationError(
                f"{orders['boot']} sets no settings.receiver: see conf/boot.py of `maildefer new` for an example"
            )
        return receiver

    def _launch_monitor(self) -> MonitorLauncher | None:
        """Launch what answers for health and metrics, where the settings name an address."""
        if self._health is None:
            return None
        if self._orders["uid"] is not None:
            raise ConfigurationError(
                "health_config: a front end that becomes another user can't be asked: start it as that user, or with "
                "MAILDEFER_HEALTH=off"
            )
        from maildefer.pool.frontend.monitor_launcher import MonitorLauncher  # only where it is asked for

        return MonitorLauncher(self._health, os.getcwd(), pidfile=self._orders["pidfile"])

    def _start(self) -> None:
        """Start the receiver; one whose `start` loops counts as ready after a while without an exception."""
        ours = getattr(self._receiver.start, "__module__", "").startswith("maildefer.")
        if not (ours and hasattr(self._receiver, "ended")):  # else it returns once it serves
            threading.Thread(target=self._announce_loop, name="ready", daemon=True).start()
        try:
            self._receiver.start()
        except Exception:
            if not self._stopping.is_set():
                raise
        self._returned = True
        self._announce()

    def _announce_loop(self) -> None:
        if not self._stopping.wait(_LOOPS_SECONDS) and not self._returned:
            self._announce()

    def _announce(self) -> None:
        ready = self._orders.pop("ready_fd", None)  # in one step: two threads may come here
        if ready is not None:
            os.write(ready, READY)
            os.close(ready)

    def _wait(self) -> None:
        """Wait until the process is asked to stop, for a receiver that serves in threads."""
        ended = getattr(self._receiver, "ended", None)
        while not self._stopping.wait(_LOOK_SECONDS):
            if ended is not None and (code := ended()) is not None:
                raise MaildeferError(
                    f"the process that takes mail has ended with {code}: see its output above"
                )

    def _note(self, signum: int, frame: object) -> None:
        """Handle TERM and INT: end the receiver; a second signal ends the process at once."""
        if self._stopping.is_set():
            os._exit(1)
        self._stopping.set()
        if self._receiver is None:
            raise SystemExit(0)
        if not self._returned:  # start() still loops, in the code that this handler interrupts
            threading.Thread(target=self._end_loop, name="end", daemon=True).start()

    def _note_reload(self, signum: int, frame: object) -> None:
        """Handle HUP in a thread: a reload takes a while, and the interrupted code may hold a lock that it needs."""
        threading.Thread(target=self._reload, name="reload", daemon=True).start()

    def _reload(self) -> None:
        """Reload the receiver, if it has a `reload`."""
        reload = getattr(self._receiver, "reload", None)
        if reload is None or self._stopping.is_set():
            return
        with self._reloading:
            number, refused = int(str(self._reloads["answered"])) + 1, None
            self._reloads["asked"] = number
            try:
                reload()
            except (MaildeferError, OSError) as fault:  # the old routes stay
                refused = str(fault)
                events.emit("application.broken", reason=refused)
            self._reloads = {"asked": number, "answered": number, "refused": refused}

    def _end_loop(self) -> None:
        self._receiver.close()
        time.sleep(_DRAIN_SECONDS)
        events.write("maildefer: what is in hand was not finished in time\n")
        self._unregister()
        os._exit(1)

    def _become_user(self) -> None:
        """Become another user, after the sockets are bound and the pid file is written, which may need root."""
        uid, gid = self._orders["uid"], self._orders["gid"]
        if uid is None or gid is None:
            return
        # A receiver's programs, such as Salmon's, may need more rights.
        confined = not getattr(self._receiver, "runs_handlers", True)
        try:
            os.setgroups([])
            if confined:
                prctl.empty_bounding_set()
            os.setgid(gid)
            os.setuid(uid)
        except PermissionError as fault:
            raise ConfigurationError(
                f"this process may not become user {uid}, group {gid}: start it as root, "
                "or as that very user without --uid and --gid"
            ) from fault
        if confined:
            prctl.set_no_new_privileges()

    def _register(self) -> None:
        host, path = this_host(), self._orders["pidfile"]
        socket_path, report = None, getattr(self._receiver, "status", None)
        if callable(report):
            socket_path = runtime_dir.socket_path(path)
            reloads = callable(getattr(self._receiver, "reload", None))
            status_socket.answer_in_thread(
                status_socket.listen_at(socket_path),
                lambda: {**report(), "reload": self._reloads} if reloads else report(),
            )
        # Of a front end and of the sink; others may have none.
        queue = getattr(self._receiver, "queue_dir", None)
        self._record = runtime_dir.RuntimeRecord(
            pid=os.getpid(),
            start_time=start_time(os.getpid()) or 0,
            kind="log" if self._orders["kind"] == "log" else "start",
            pidfile=path,
            started=time.time(),
            queues=(os.path.abspath(queue),) if isinstance(queue, str) else (),
            project=os.getcwd(),
            status_socket=socket_path,
        )
        self._pidfile = pidfile.for_process(os.getpid(), host, kind=self._record.kind)
        runtime_dir.write_record(self._record, host)
        pidfile.write(path, self._pidfile)

    def _unregister(self) -> None:
        """Remove pid file and record; where privileges are gone, the next `stop` or `status` removes them.

        The pid file may be on a mount that hangs: it is removed last, and by a child that is left behind if need be.
        """
        with suppress(OSError, MaildeferError):
            runtime_dir.remove_record(self._record)
        with suppress(OSError, MaildeferError):
            bounded(lambda: pidfile.remove(self._record.pidfile, self._pidfile))


def _leave_it(signum: int, frame: object) -> None:
    """Do nothing. Used instead of SIG_IGN, which executed programs would inherit."""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
