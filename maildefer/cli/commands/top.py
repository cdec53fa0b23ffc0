"""`top`: what `status` shows, live, on a terminal; with keys to pause, resume and look at a message."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Annotated

import typer

from maildefer.cli.commands.pause import pause_queue, resume_queue, user_name
from maildefer.cli.live.history import History
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import records_meant
from maildefer.errors import MaildeferError
from maildefer.host.identity import this_host

app = Commands()
_STEP_SECONDS, _STEPS = 15.0, 16


@app.command()
def top(
    queues: Annotated[
        list[str] | None, typer.Argument(metavar="[QUEUE]...", help="Show these; else those that are served.")
    ] = None,
    all_projects: Annotated[
        bool, typer.Option("--all-projects", help="Of this host, other projects' processes as well.")
    ] = False,
) -> None:
    """Show pools, queues and workers on the terminal, live."""
    if not (os.isatty(0) and os.isatty(1)) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        raise MaildeferError("`maildefer top` needs a terminal: `maildefer status` prints the same once")
    from maildefer.cli.live.watch import Watch
    from maildefer.cli.top.app import TopApp  # rich

    pause = partial(pause_queue, user=user_name(), host=this_host().label)

    async def run() -> None:
        watch = Watch(records_meant(all_projects), queues, History(step_seconds=_STEP_SECONDS, length=_STEPS))
        await TopApp(watch, pause=pause, resume=resume_queue).run()

    asyncio.run(run())
