"""A process that takes messages by HTTP, from its start to its end: sockets, signals, drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping

from aiohttp import web

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.intake import startup
from maildefer.intake.http.api_tokens import ApiTokens
from maildefer.intake.http.options import HttpOptions
from maildefer.intake.http.push_endpoint import PushEndpoint
from maildefer.intake.http.service import HttpService
from maildefer.intake.options import address_text
from maildefer.intake.status_report import IntakeStatus
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.shared_memory import WriterLink


async def serve(options: HttpOptions, links: Mapping[str, WriterLink], tokens: ApiTokens) -> bool:
    """Take messages until TERM or INT; False when it was a writer that ended. Raises OSError."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, tokens)
    loop.add_signal_handler(signal.SIGUSR1, events.reopen)
    startup.unblock_early_signals()
    writers = {name: await WriterClient.open(link, threads=options.threads) for name, link in links.items()}
    endpoint = PushEndpoint(options, writers, tokens)
    application = web.Application()
    application.router.add_post("/queues/{name}", endpoint.post, expect_handler=endpoint.expect)
    service = HttpService(application, options)
    sockets = [socket.socket(fileno=fd) for fd in options.socket_fds]
    admission = await service.open(sockets)
    addresses = " ".join(address_text("http", each.getsockname()) for each in sockets)
    events.emit("intake.listening", pid=os.getpid(), at=addresses, queues=" ".join(options.queues))
    report = loop.create_task(
        IntakeStatus(
            lambda: {**admission.connections.limits.facts(), **endpoint.facts()}, writers, options.report_fd
        ).keep_reporting()
    )
    await asyncio.wait(
        [loop.create_task(event.wait()) for event in (stop, *(writer.closed for writer in writers.values()))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    report.cancel()
    await service.close()
    for writer in writers.values():
        await writer.close()
    return stop.is_set()


def _reload(tokens: ApiTokens) -> None:
    try:
        tokens.read()
    except ConfigurationError as fault:
        events.emit("intake.stale", reason=str(fault))
