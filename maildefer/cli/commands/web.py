"""`web`: a page that shows what `status` and `dead` do, live, in a browser."""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from importlib.util import find_spec
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.live.history import History
from maildefer.cli.parameters import Commands, octal
from maildefer.cli.status_survey import records_meant
from maildefer.errors import ConfigurationError
from maildefer.host.linux.process_title import set_title
from maildefer.intake.http.api_tokens import ApiTokens
from maildefer.pool.frontend.listeners import WebListener, bound, bound_file

app = Commands()

_STEPS = 360  # of a plot


@app.command()
def web(
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Show these; else those that are served."),
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Listen there.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="0: any that is free.")] = 8824,
    socket: Annotated[
        str | None,
        typer.Option("--socket", metavar="PATH", help="Listen on a socket file, whose mode is the guard."),
    ] = None,
    mode: Annotated[str, typer.Option("--mode", metavar="OCTAL", help="The socket file's mode.")] = "600",
    token_file: Annotated[
        str | None,
        typer.Option("--token-file", metavar="PATH", help="Who may look; else a token is made and printed."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="A name of this host in URLs, beside localhost."),
    ] = None,
    hours: Annotated[
        float, typer.Option("--hours", metavar="N", min=0.01, help="Plot so many, kept in memory.")
    ] = 6.0,
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Of this host, other projects' processes as well.")
    ] = False,
) -> None:
    """Show pools, queues and dead letters on a page, live; it changes nothing."""
    if find_spec("aiohttp") is None:
        raise ConfigurationError("the page needs aiohttp: install maildefer[web]")
    from maildefer.cli.live.watch import Watch
    from maildefer.cli.web.access import Guard  # aiohttp
    from maildefer.cli.web.server import serve

    tokens = ApiTokens(token_file) if token_file else None
    if tokens is not None and not tokens.has_general:
        raise ConfigurationError(
            f"{token_file} has no token that opens a page: add a line with nothing but one, made by "
            "`openssl rand -hex 32`"
        )
    token = "" if tokens or socket else secrets.token_urlsafe(32)
    listener = WebListener(bound_file(socket, octal("--mode", mode, "660")) if socket else bound(host, port))
    made = os.stat(socket).st_ino if socket else 0
    address = str(listener)
    guard = Guard(
        tokens=tokens, token=token, names=name or (), cookie=f"maildefer-{address.rpartition(':')[2]}"
    )
    set_title("page")
    output.line(f"{address}/?token={token}" if token else address)
    output.flush()
    if socket:
        path = os.path.abspath(socket)
        output.say(f"`curl --unix-socket {path} http://localhost/`; by SSH: ssh -L 8824:{path} HOST")
    elif token:
        output.say("open that address; INT ends it")
    else:
        output.say(f"open that address with ?token= and a token of {token_file}; INT ends it")
    records = records_meant(all_projects)

    async def run() -> None:
        history = History(step_seconds=hours * 3600 / _STEPS, length=_STEPS)
        await serve(Watch(records, queues, history), guard, listener)

    try:
        asyncio.run(run())
    finally:
        if socket:
            with suppress(OSError):
                if os.stat(socket).st_ino == made:  # else another page has begun meanwhile
                    os.unlink(socket)
