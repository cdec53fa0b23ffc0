"""A process that takes messages by HTTP, from its start to its end: sockets, signals, drain."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus

from aiohttp import web

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.intake import startup
from maildefer.intake.accept_loop import AcceptLoop
from maildefer.intake.http import access_log
from maildefer.intake.http.admission import Admission, problem
from maildefer.intake.http.api_tokens import ApiTokens
from maildefer.intake.http.options import HttpOptions
from maildefer.intake.http.push_endpoint import PushEndpoint, end_request
from maildefer.intake.http.unparsable import HttpHandler
from maildefer.intake.status_report import IntakeStatus
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.shared_memory import WriterLink

_LINGER_SECONDS = 2.0  # for what still comes of a body that was refused
_CLEANUP_SECONDS = 0.5  # for connections that were dismissed already


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
    application.on_response_prepare.append(_prepare_response)
    runner = web.AppRunner(application, shutdown_timeout=_CLEANUP_SECONDS)
    await runner.setup()
    sockets = [socket.socket(fileno=fd) for fd in options.socket_fds]
    assert runner.server is not None
    make_handler = partial(
        HttpHandler,
        runner.server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]  # there is none: our own events tell it
        logger=access_log.logger(),
        auto_decompress=False,  # a small body may unpack to a huge one
        keepalive_timeout=options.idle_seconds,
        lingering_time=_LINGER_SECONDS,
    )
    admission = Admission(options, make_handler)
    refusal = problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry=True)
    accept_loops = [AcceptLoop(loop, each, admission.begin_connection, refusal=refusal) for each in sockets]
    for accept_loop in accept_loops:
        accept_loop.open()
    addresses = " ".join(
        f"http://{host}:{port}" for host, port, *_ in (each.getsockname() for each in sockets)
    )
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
    for accept_loop in accept_loops:
        accept_loop.close()
    await admission.connections.drain(options.drain_seconds)
    await runner.cleanup()
    for writer in writers.values():
        await writer.close()
    return stop.is_set()


async def _prepare_response(request: web.Request, response: web.StreamResponse) -> None:
    if end_request(request):
        response.force_close()
    response.headers.pop("Server", None)  # which names aiohttp and its version


def _reload(tokens: ApiTokens) -> None:
    try:
        tokens.read()
    except ConfigurationError as fault:
        events.emit("intake.stale", reason=str(fault))
