"""`audit`: the proof that nothing was lost, and the journal that it rests on."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict
from shlex import quote
from typing import Annotated

import typer

from maildefer.cli import output
from maildefer.cli.defaults import open_or_make
from maildefer.cli.entries.selection import Json, Yes
from maildefer.cli.parameters import Commands
from maildefer.cli.progress import steps
from maildefer.control.audit import TIMEOUT_SECONDS, AuditReport
from maildefer.control.audit import audit as run_audit
from maildefer.control.journal_reader import kept_since
from maildefer.maildir import journal
from maildefer.maildir.layout import open_queue
from maildefer.maildir.operator import record_keeping
from maildefer.maildir.operator.entries import FOLDERS
from maildefer.maildir.rights.recording import barred_writers

app = Commands()


@app.command()
def audit(
    queues: Annotated[list[str], typer.Argument(metavar="QUEUE...", help="The queues' directories.")],
    on: Annotated[bool, typer.Option("--on", help="Keep a journal from now on.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Keep none from now on, and delete it.")] = False,
    patience: Annotated[
        float, typer.Option("--patience", metavar="SECONDS", min=0.0, help="Look so long before accusing.")
    ] = TIMEOUT_SECONDS,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Prove from a queue's journal that nothing was lost."""
    if on and off:
        raise typer.BadParameter("Give one of --on and --off.")
    if on:
        _begin(queues)
    elif off:
        _end(queues, yes)
    else:
        _audit(queues, patience, json)


def _begin(queues: list[str]) -> None:
    for queue in queues:
        begun = journal.begin_journal(layout := open_or_make(queue))
        record_keeping.expect_records(layout, None if begun else kept_since(layout))
        output.say(f"{queue} keeps a journal {'from now on' if begun else 'already'}")
        for text in barred_writers(layout.path):
            output.complain(
                f"{queue}: {text}: `maildefer audit --on {quote(queue)}`, as root, gives it the right"
            )
    output.say(
        "processes that run keep none yet: `maildefer reload --all-hosts`, and start anew what pushes;\n"
        "what they accept from then on is proven by `maildefer audit`, which misses records of\n"
        "what they accept until then: `--on` once more, after that, has it expect them from then on only"
    )


def _end(queues: list[str], yes: bool) -> None:
    if not output.confirmed(f"Delete the journal of {', '.join(queues)}?", yes):
        raise typer.Exit(1)
    failed = False
    for queue in queues:
        left = None
        with suppress(FileNotFoundError):  # there was none
            left = record_keeping.end_journal(open_queue(queue))
        output.say(f"{queue} keeps no journal")
        if left is not None:
            output.complain(f"{left} holds what is no file of a journal: see what it is, and remove it")
            failed = True
    if failed:
        raise typer.Exit(1)


def _audit(queues: list[str], patience: float, json: bool) -> None:
    with steps("auditing") as tell:
        report = run_audit(queues, timeout_seconds=patience, tell=tell)
    for suspect in report.suspects:
        if json:
            output.record({"kind": "suspect", **asdict(suspect)})
        else:
            age = output.duration(time.time() - suspect.pushed_at)
            facts = f"accepted {age} ago, last {suspect.last}: {suspect.why}"
            output.line(output.clean(f"{suspect.verdict}  {suspect.key}  {facts}"))
    for key in () if json else report.unrecorded_keys:
        why = "it has an end in the journal, but its push left no record"
        output.line(output.clean(f"unrecorded  {key}  {why}"))
    for path, why in () if json else report.unreadable.items():
        output.line(output.clean(f"unreadable  {path}  {why}"))
    lost, unproven = report.count("lost"), report.count("unproven")
    if json:
        facts_of_all = asdict(report)
        del facts_of_all["suspects"]
        output.record({"kind": "audit", **facts_of_all, "lost": lost, "unproven": unproven})
    else:
        _show(report, lost, unproven)
    if lost or unproven:
        output.complain(f"{lost} lost, {unproven} unproven: `maildefer queue show QUEUE KEY` looks once more")
    if report.unrecorded:
        pushes = output.count(report.unrecorded, "push", "pushes")
        output.complain(
            f"{pushes} left no record, so the audit is blind: `maildefer doctor` tells who may not write to the "
            "journal, and the log of what pushes has journal.failed; once that is cured, `maildefer audit --on` has it "
            "expect records from then on"
        )
    for text in report.blind:
        output.complain(f"blind: {text}")
    if report.blind:
        output.complain(
            "what these handle is not proven: as root, `maildefer audit --on QUEUE` gives the journal to the queue's "
            "owner; `maildefer reload --all-hosts` has pools begin to keep it, and consumers are to be started anew"
        )
    if report.unreadable:
        files = output.count(len(report.unreadable), "file of a journal", "files of journals")
        output.complain(f"{files} can't be read: look whose they are")
    if lost or unproven or report.unrecorded or report.unreadable or report.blind:
        raise typer.Exit(1)


def _show(report: AuditReport, lost: int, unproven: int) -> None:
    rows: list[tuple[object, str]] = [(report.accepted, "accepted"), (report.ended, "ended")]
    rows += [(report.found[folder], folder) for folder in FOLDERS]
    rows += [(unproven, "unproven"), (lost, "lost")]
    rows += [(report.unrecorded, "unrecorded")] if report.unrecorded else []
    output.table(rows)
    if report.since is not None:
        age = output.duration(time.time() - report.since)
        output.say(f"what was accepted in the last {age} is in the journal")
    if report.handed:
        output.say(
            f"{output.count(report.handed, 'end is', 'ends are')} of messages from other queues, which have their "
            "pushes on record: audit those together with these"
        )
    elif not report.accepted:
        output.say(
            "nothing is on record, which proves nothing: `maildefer status` shows who serves the queue"
        )
    if report.unsynced:
        output.say(
            f"{output.count(report.unsynced, 'push', 'pushes')} left no record: their host stopped, and booted again, "
            "before it was on the disk"
        )
    if report.torn:
        torn = output.count(report.torn, "record is", "records are")
        output.say(f"{torn} torn: their writers were killed, or their host stopped")
    if report.gaps:
        output.say(f"for {output.count(report.gaps, 'time', 'times')} records could not be written")
