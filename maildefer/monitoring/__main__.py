"""`python -m maildefer.monitoring --pidfile PATH --socket-fd N`: see `--help`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable

from maildefer import events
from maildefer.host.linux.process_title import set_title
from maildefer.intake import startup
from maildefer.intake.options import address_text
from maildefer.intake.status_report import IntakeStatus
from maildefer.monitoring.alerts import watch
from maildefer.monitoring.looks import Looks
from maildefer.monitoring.options import MonitorOptions, parse


def main() -> int:
    """0 after TERM."""
    options = parse()
    events.configure(options.log_format, log_file=options.log_file, level=options.log_level)
    startup.ensure_no_new_privileges()
    startup.raise_descriptor_limit(options.max_connections)
    set_title(f"monitor {options.pidfile}")
    asyncio.run(_serve(options))
    return 0


async def _serve(options: MonitorOptions) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    loop.add_signal_handler(signal.SIGUSR1, events.reopen)
    if options.lifeline_fd is not None:
        loop.add_reader(options.lifeline_fd, stop.set)
    startup.unblock_early_signals()
    looks = Looks(options.pidfile)
    tasks = [] if options.alerts is None else [loop.create_task(watch(looks, options.alerts))]
    serving = _serving(looks, options) if options.socket_fds else contextlib.nullcontext(_nothing)
    async with serving as facts:
        tasks.append(loop.create_task(IntakeStatus(facts, {}, options.report_fd).keep_reporting()))
        stopped = loop.create_task(stop.wait())
        await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():  # an error of ours: this process is started anew
                task.result()
            task.cancel()


@contextlib.asynccontextmanager
async def _serving(looks: Looks, options: MonitorOptions) -> AsyncIterator[Callable[[], dict[str, object]]]:
    """Serve, and yield what tells of the connections."""
    # aiohttp and prometheus_client, not for alerts alone.
    from maildefer.intake.http.service import HttpService
    from maildefer.monitoring.endpoints import Endpoints

    service = HttpService(Endpoints(looks).application(), options)
    sockets = [socket.socket(fileno=fd) for fd in options.socket_fds]
    admission = await service.open(sockets)
    addresses = " ".join(address_text("http", each.getsockname()) for each in sockets)
    events.emit("monitor.listening", pid=os.getpid(), at=addresses)
    yield admission.connections.limits.facts
    await service.close()


def _nothing() -> dict[str, object]:
    return {"connections": 0}


if __name__ == "__main__":
    sys.exit(main())
