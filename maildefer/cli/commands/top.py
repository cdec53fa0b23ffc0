"""`top`: what `status` shows, live, on a terminal; with keys to pause, resume and look at a message."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from maildefer.cli.commands.pause import pause_queue, user_name
from maildefer.cli.live.history import History
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import records_meant
from maildefer.errors import MaildeferError
from maildefer.host.identity import this_host
from maildefer.maildir.layout import open_queue
from maildefer.maildir.operator import pause_mark

app = Commands()
_STEP_SECONDS, _STEPS = 15.0, 16


@app.command()
def top(
    queues: Annotated[
        list[str] | None,
        typer.Argument(metavar="[QUEUE]...", help="Show these; else those that are served."),
    ] = None,
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Of this host, other projects' processes as well.")
    ] = False,
) -> None:
    """Show pools, queues and workers on the terminal, live."""
    if not (os.isatty(0) and os.isatty(1)):
        raise MaildeferError("`maildefer top` needs a terminal: `maildefer status` prints the same once")
    from maildefer.cli.live.watch import Watch
    from maildefer.cli.top.app import TopApp  # rich

    user, host = user_name(), this_host().label

    async def run() -> None:
        watch = Watch(records_meant(all_projects), queues, History(step_seconds=_STEP_SECONDS, length=_STEPS))
        await TopApp(watch, pause=lambda queue: _pause(queue, user, host), resume=_resume).run()

    asyncio.run(run())


def _pause(queue: str, user: str, host: str) -> str:
    within = pause_queue(queue, user, host)
    return "was paused already" if within is None else f"paused: within {within:g} s no host claims from it"


def _resume(queue: str) -> str:
    return "goes on" if pause_mark.resume_queue(open_queue(queue)) else "was not paused"
