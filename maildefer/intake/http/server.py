"""The process: sockets, signals, and its end."""

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
from maildefer.intake.http.push_endpoint import PushEndpoint, answered
from maildefer.intake.http.unparsable import Conversation
from maildefer.intake.status_report import IntakeStatus
from maildefer.intake.writer.client import WriterClient
from maildefer.intake.writer.shared_memory import WriterLink

_LINGER_SECONDS = 2.0  # for what still comes of a body that was refused
_LAST_SECONDS = 0.5  # for who was sent away already


async def serve(options: HttpOptions, links: Mapping[str, WriterLink], tokens: ApiTokens) -> bool:
    """Take messages until TERM or INT; False when it was a writer that ended. Raises OSError."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _read_again, tokens)
    loop.add_signal_handler(signal.SIGUSR1, events.reopen)
    startup.unblock_early_signals()
    lines = {name: await WriterClient.open(link, threads=options.threads) for name, link in links.items()}
    door = PushEndpoint(options, lines, tokens)
    application = web.Application()
    application.router.add_post("/queues/{name}", door.post, expect_handler=door.expect)
    application.on_response_prepare.append(_before_an_answer)
    runner = web.AppRunner(application, shutdown_timeout=_LAST_SECONDS)
    await runner.setup()
    sockets = [socket.socket(fileno=fd) for fd in options.socket_fds]
    assert runner.server is not None
    conversation = partial(
        Conversation,
        runner.server,
        loop=loop,
        access_log=None,  # type: ignore[arg-type]  # there is none: our own events tell it
        logger=access_log.logger(),
        auto_decompress=False,  # a bomb
        keepalive_timeout=options.idle_seconds,
        lingering_time=_LINGER_SECONDS,
    )
    lodge = Admission(options, conversation)
    refusal = problem(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections", retry=True)
    acceptors = [AcceptLoop(loop, each, lodge.take, refusal=refusal) for each in sockets]
    for acceptor in acceptors:
        acceptor.open()
    addresses = " ".join(
        f"http://{host}:{port}" for host, port, *_ in (each.getsockname() for each in sockets)
    )
    events.emit("intake.listening", pid=os.getpid(), at=addresses, queues=" ".join(options.queues))
    report = loop.create_task(
        IntakeStatus(
            lambda: {**lodge.connections.limits.facts(), **door.facts()}, lines, options.report_fd
        ).keep()
    )
    await asyncio.wait(
        [loop.create_task(event.wait()) for event in (stop, *(line.closed for line in lines.values()))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    report.cancel()
    for acceptor in acceptors:
        acceptor.close()
    await lodge.connections.drain(options.drain_seconds)
    await runner.cleanup()
    for line in lines.values():
        await line.close()
    return stop.is_set()


async def _before_an_answer(request: web.Request, response: web.StreamResponse) -> None:
    if answered(request):
        response.force_close()
    response.headers.pop("Server", None)  # its name and versions are nobody's business


def _read_again(tokens: ApiTokens) -> None:
    try:
        tokens.read()
    except ConfigurationError as fault:
        events.emit("intake.stale", reason=str(fault))
