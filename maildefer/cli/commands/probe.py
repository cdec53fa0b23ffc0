"""`probe`: whether processes live and are ready, by the exit code, for process managers and load balancers."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.parameters import Commands
from maildefer.cli.status_survey import meant
from maildefer.control import health
from maildefer.control import local_processes as control
from maildefer.host.bounded_call import side_by_side

app = Commands()

EX_FAILURE = 1
_SECONDS = 1.5  # less than what orchestrators wait, whatever mounts do: none is looked at


@app.command()
def probe(
    live: Annotated[bool, typer.Option("--live", help="Fail for what had better be started anew.")] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Fail for what takes no messages now, or not by its newest code.")
    ] = False,
    pid: Annotated[
        str | None, typer.Option("--pid", metavar="PATH", help="Only the process with this pid file.")
    ] = None,
) -> None:
    """Tell by the exit code whether this host's processes of the project live, or are ready."""
    if live == ready:
        raise typer.BadParameter("Give one of --live and --ready.")
    records = meant(pid)
    if not records:
        output.complain("nothing runs" + (f" with the pid file {pid}" if pid else ""))
        raise typer.Exit(EX_FAILURE)
    asked = [partial(control.ask_process, record, _SECONDS * 0.8) for record in records]
    answers = side_by_side(asked, _SECONDS)
    failed = False
    for record, answer in zip(records, answers, strict=True):
        for problem in control.problems_of(answer, health.why_dead if live else health.why_unready):
            failed = True
            output.complain(f"{record.kind} {record.pid}: {problem}")
    if failed:
        raise typer.Exit(EX_FAILURE)
    output.line("live" if live else "ready")
