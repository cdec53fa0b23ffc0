"""The process: sockets, signals, and its end."""

from __future__ import annotations

import asyncio
import os
import signal

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.intake import startup
from maildefer.intake.access.policy_client import PolicyClient
from maildefer.intake.access.recipients import RecipientTable
from maildefer.intake.access.security import AccessSecurity
from maildefer.intake.context import ServerContext
from maildefer.intake.listeners import SessionListener
from maildefer.intake.options import IntakeOptions
from maildefer.intake.status_report import IntakeStatus
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.shared_memory import WriterLink


async def serve(options: IntakeOptions, link: WriterLink, guard: AccessSecurity) -> bool:
    """Take mail until TERM, INT, or the end of the lifeline; False when it was the writer that ended.

    `link` is our end of that with the writer. Raises ConfigurationError, OSError.
    """
    loop = asyncio.get_running_loop()
    recipients = RecipientTable(options.queue, options.routes_path, options.domains)
    stop = asyncio.Event()
    line = await WriterClient.open(link, threads=options.threads)
    hall = ServerContext(options, line, recipients, loop, guard)
    if guard.credentials is not None:
        guard.credentials.begin()
    if options.policy:
        seconds, processes = options.policy_seconds, options.policy_processes
        hall.policy = PolicyClient(options.policy, seconds=seconds, processes=processes)
    _listen_to_signals(loop, stop, hall)
    entrances = [SessionListener(hall, door) for door in options.doors]
    for entrance in entrances:
        entrance.open()
    events.emit("intake.listening", pid=os.getpid(), at=" ".join(map(str, entrances)), queue=options.queue)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)
    report = loop.create_task(IntakeStatus(hall.facts, {options.queue: line}, options.report_fd).keep())
    await asyncio.wait(
        [asyncio.create_task(event.wait()) for event in (stop, line.closed)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for entrance in entrances:
        entrance.close()
    await hall.connections.drain(options.drain_seconds)
    report.cancel()
    if hall.policy is not None:
        await hall.policy.close()
    if guard.credentials is not None:
        await guard.credentials.close()
    await line.close()
    return stop.is_set()


def _listen_to_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, hall: ServerContext) -> None:
    lifeline_fd = hall.options.lifeline_fd
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _read_again, hall)
    loop.add_signal_handler(signal.SIGUSR1, events.reopen)
    startup.unblock_early_signals()
    if lifeline_fd is not None:  # our starter holds the other end: readable means that it is gone
        loop.add_reader(lifeline_fd, _cut, loop, stop, lifeline_fd)


def _cut(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, lifeline_fd: int) -> None:
    loop.remove_reader(lifeline_fd)
    stop.set()


def _read_again(hall: ServerContext) -> None:
    if hall.policy is not None:
        hall.policy.reload()
    hall.security.read()
    try:
        hall.recipients.read()
    except ConfigurationError as fault:
        events.emit("application.broken", reason=str(fault))
