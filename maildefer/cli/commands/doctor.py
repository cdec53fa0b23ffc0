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
from maildefer.doctor.one_sync import take_one, take_two
from maildefer.maildir.layout import open_queue

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
    one_sync: Annotated[
        bool, typer.Option("--one-sync", help="Have a push wait for one sync, if that is proven there.")
    ] = False,
    two_syncs: Annotated[bool, typer.Option("--two-syncs", help="Have it wait for two again.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Check whether a mount is safe for a queue."""
    place = path or (RUN if os.path.isdir(RUN) else ".")
    if one_sync or two_syncs:
        _set_syncs(place, one_sync, two_syncs)
        return
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


def _set_syncs(queue: str, one_sync: bool, two_syncs: bool) -> None:
    if one_sync and two_syncs:
        raise typer.BadParameter("Give one of --one-sync and --two-syncs.")
    layout = open_queue(queue)
    if one_sync:
        take_one(layout)
        output.say(f"a push into {queue} takes one sync, once what pushes is started anew")
    else:
        take_two(layout)
        output.say(f"a push into {queue} takes two syncs")
