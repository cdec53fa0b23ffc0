"""A process that takes mail by SMTP or LMTP, from its start to its end: sockets, signals, reloads, drain."""

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


async def serve(options: IntakeOptions, link: WriterLink, security: AccessSecurity) -> bool:
    """Take mail until TERM, INT, or the end of the lifeline; False when it was the writer that ended.

    `link` is our end of that with the writer. Raises ConfigurationError, OSError.
    """
    loop = asyncio.get_running_loop()
    recipients = RecipientTable(options.queue, options.routes_path, options.domains)
    stop = asyncio.Event()
    writer = await WriterClient.open(link, threads=options.threads)
    context = ServerContext(options, writer, recipients, loop, security)
    if security.credentials is not None:
        security.credentials.start_process()
    if options.policy:
        seconds, processes = options.policy_seconds, options.policy_processes
        context.policy = PolicyClient(options.policy, seconds=seconds, processes=processes)
    _install_signal_handlers(loop, stop, context)
    listeners = [SessionListener(context, each) for each in options.sockets]
    for listener in listeners:
        listener.open()
    events.emit("intake.listening", pid=os.getpid(), at=" ".join(map(str, listeners)), queue=options.queue)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"\n")
        os.close(options.ready_fd)
    report = loop.create_task(
        IntakeStatus(context.facts, {options.queue: writer}, options.report_fd).keep_reporting()
    )
    await asyncio.wait(
        [asyncio.create_task(event.wait()) for event in (stop, writer.closed)],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for listener in listeners:
        listener.close()
    await context.connections.drain(options.drain_seconds)
    report.cancel()
    if context.policy is not None:
        await context.policy.close()
    if security.credentials is not None:
        await security.credentials.close()
    await writer.close()
    return stop.is_set()


def _install_signal_handlers(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, context: ServerContext
) -> None:
    lifeline_fd = context.options.lifeline_fd
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, context)
    loop.add_signal_handler(signal.SIGUSR1, _reopen_log, context)
    startup.unblock_early_signals()
    if lifeline_fd is not None:  # our starter holds the other end: readable means that it is gone
        loop.add_reader(lifeline_fd, _end_with_starter, loop, stop, lifeline_fd)


def _end_with_starter(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, lifeline_fd: int) -> None:
    loop.remove_reader(lifeline_fd)
    stop.set()


def _reopen_log(context: ServerContext) -> None:
    """Open the log file anew, and replace the processes of a policy, which print to the one that was moved away."""
    if events.current_log_file() is None:
        return
    events.reopen()
    if context.policy is not None:
        context.policy.reload()
    if context.security.credentials is not None:
        context.security.credentials.replace_process()


def _reload(context: ServerContext) -> None:
    """Read routes, certificate and passwords again; what can't be used leaves the old in force."""
    if context.policy is not None:
        context.policy.reload()
    context.security.read()
    try:
        context.recipients.read()
    except ConfigurationError as fault:
        events.emit("application.broken", reason=str(fault))
