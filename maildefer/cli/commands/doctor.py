"""`doctor`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.defaults import RUN
from maildefer.cli.group import EX_CONFIG
from maildefer.cli.parameters import Commands
from maildefer.cli.progress import steps
from maildefer.doctor.examine import examine

app = Commands()
_MARKS = {"ok": "ok", "warn": "WARN", "refuse": "REFUSE"}


@app.command()
def doctor(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[QUEUE|PATH]", help="A queue, or where queues are to be (run, or here)."),
    ] = None,
    user: Annotated[
        str, typer.Option("--user", metavar="NAME", help="Also try what a front end of this user may do.")
    ] = "",
    group: Annotated[str, typer.Option("--group", metavar="NAME", help="And of this group.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Check whether a mount is safe for a queue."""
    place = path or (RUN if os.path.isdir(RUN) else ".")
    with steps("trying") as tell:
        findings = examine(place, user=user, group=group, tell=tell)
    if json:
        for finding in findings:
            output.record({"path": os.path.abspath(place), **asdict(finding)})
    else:
        output.table([(_MARKS[finding.verdict], finding.check, finding.fact) for finding in findings])
        for finding in findings:
            if finding.remedy:
                output.say(f"{finding.check}: {finding.remedy}")
    if any(finding.verdict == "refuse" for finding in findings):
        output.complain(f"{place} is not safe for a queue")
        raise typer.Exit(EX_CONFIG)
    warns = any(finding.verdict == "warn" for finding in findings)
    output.say(f"{place} is safe for a queue" + (", with the warnings above" if warns else ""))
