"""What a run of chaos came to: everything counted from the queue's folders and the handlers' journals."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chaos_means import MeansFacts, judge_means
from benchmarks.chaos_notes import read
from benchmarks.chaos_sending import SendingFacts, judge_sending
from maildefer.control.audit import AuditReport
from maildefer.maildir import scan
from maildefer.maildir.reasons import read_reason
from tests.lifecycle.project import Project


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the driver saw."""

    project: Project
    pushed: Sequence[str]
    survivors: Mapping[int, float]  # workers that lived to the end, and when each began: they explain nothing
    acked: Sequence[str]  # keys, as the log has them; a killed worker's last lines are not in it
    counts: Mapping[str, int]
    exit_codes: Sequence[int]
    seconds: float
    wanted: int = 0  # how many were to be accepted
    doubtful: int = 0  # sent by SMTP without a good reply: accepted or not, nobody knows
    lost_claims: Sequence[
        str
    ] = ()  # keys of claims whose settle found them taken: their worker had been frozen
    audited: AuditReport | None = None
    instants: Sequence[int] = ()  # of the periodic task, as the log has them
    means: MeansFacts = field(default_factory=MeansFacts)
    sending: SendingFacts = field(default_factory=SendingFacts)


@dataclass(frozen=True, slots=True)
class Verdict:
    rows: list[tuple[str, object]]
    violations: list[str]

    def table(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        lines = [f"  {name:<{width}}  {value:>8}" for name, value in self.rows]
        return "\n".join([*lines, *(f"VIOLATED: {text}" for text in self.violations or ())])


def judge(facts: Facts) -> Verdict:
    """Compare what was pushed with what was handled and with what still lies in the queue."""
    journals = [read(path) for path in (facts.project.path / "journal").iterdir()]
    starts = Counter(start.key for journal in journals for start in journal.starts)
    ends = Counter(key for journal in journals for key, _ in journal.ends)
    pushed = set(facts.pushed)
    dead_ones = [journal for journal in journals if journal.began < facts.survivors.get(journal.pid, 1e12)]
    died_handling = Counter(key for journal in dead_ones for key in journal.in_hand)
    last = Counter(key for journal in dead_ones for key in journal.last)
    raised = Counter(key for journal in journals for key in journal.raised)
    extra = {key: more for key, count in starts.items() if (more := count - 1 - raised[key]) > 0}
    # After its handler's end and before the ack's reply a message is in a worker's hands as well.
    died_settling = sum(
        min(count, last[key]) - min(count, died_handling[key]) for key, count in extra.items()
    )
    # A worker that lives on after a fence, and handles to the end what others have by then.
    frozen = Counter(facts.lost_claims)
    outlived = sum(min(max(0, count - last[key]), frozen[key]) for key, count in extra.items())
    unexplained = {key: count for key, count in extra.items() if count > last[key] + frozen[key]}
    dead = _dead(facts.project)
    by_limit = {key for key, error in dead.items() if error == "crash limit"}
    lost = pushed - ends.keys() - dead.keys()
    unknown = starts.keys() - pushed
    left = _left_over(facts.project)
    drafts = left.pop("tmp")  # of front ends that were killed at it: swept after 36 hours
    early = [key for journal in journals for key in journal.early]
    calls, wanted = _calls(facts)
    twice = [instant for instant, count in Counter(facts.instants).items() if count > 1]
    doubly_acked = [key for key, count in Counter(facts.acked).items() if count > 1]
    rows: list[tuple[str, object]] = [
        ("messages pushed", len(pushed)),
        ("seconds", f"{facts.seconds:.1f}"),
        *facts.counts.items(),
        ("worker processes that handled something", len(journals)),
        ("messages in handlers of workers that died", sum(died_handling.values())),
        ("… between the handler's end and the ack", died_settling),
        ("claims that a frozen worker lost to a fence", len(facts.lost_claims)),
        ("handlings begun", sum(starts.values())),
        ("handlings ended", sum(ends.values())),
        ("handlings beyond one a message", sum(extra.values())),
        ("… of which by frozen workers that lived on", outlived),
        ("pushed for later", sum(",t=" in key for key in pushed)),
        ("… of which handled before they were due", len(early)),
        ("instants of a periodic task", wanted),
        ("… that were pushed twice", len(twice)),
        ("calls of it, made or waiting", calls),
        ("lost", len(lost)),
        ("entries left over", sum(left.values())),
        ("drafts of killed front ends in tmp/", drafts),
        ("dead letters by the crash limit", len(by_limit)),
        ("dead letters for another reason", len(dead) - len(by_limit)),
    ]
    checks = [
        (len(pushed) == len(facts.pushed), "two pushes got one key"),
        (len(pushed) >= facts.wanted, f"only {len(pushed)} of {facts.wanted} messages were accepted in time"),
        (not lost, f"{len(lost)} messages were never handled to the end, such as {sorted(lost)[:3]}"),
        (len(unknown) <= facts.doubtful, f"{len(unknown)} handled that nobody sent: {sorted(unknown)[:3]}"),
        (
            sum(extra.values()) <= sum(died_handling.values()) + died_settling + outlived,
            "more extra handlings than workers that died, or lost a claim, with a message in hand",
        ),
        (not unexplained, f"handled again, though no worker died on it: {sorted(unexplained)[:3]}"),
        (not early, f"handled before they were due: {early[:3]}"),
        (not twice, f"instants of a periodic task that were pushed twice: {twice[:3]}"),
        (calls >= wanted, f"{wanted} instants of a periodic task, and only {calls} calls of it"),
        (not doubly_acked, f"acked twice: {doubly_acked[:3]}"),
        (not any(left.values()), f"left over: {left}"),
        (drafts <= facts.doubtful + 3 * facts.means.unanswered, f"{drafts} drafts are left in tmp/"),
        (len(by_limit) == len(dead), f"buried for another reason than crashes: {dead}"),
        (not any(facts.exit_codes), f"a supervisor ended with {facts.exit_codes}"),
    ]
    means_rows, means_checks = judge_means(facts.means, journals, dead)
    sending_rows, sending_checks = judge_sending(facts.sending, journals, dead_ones, dead, facts.lost_claims)
    rows += means_rows + sending_rows
    checks += means_checks + sending_checks
    if facts.audited is not None:
        audit_rows, audit_checks = _audited(facts.audited, len(pushed), facts.doubtful)
        rows += audit_rows
        checks += audit_checks
    return Verdict(rows, [text for good, text in checks if not good])


def _audited(
    report: AuditReport, pushed: int, doubtful: int
) -> tuple[list[tuple[str, object]], list[tuple[bool, str]]]:
    """What the journal proves, beside what the driver and the handlers wrote down."""
    rows: list[tuple[str, object]] = [
        ("audit: accepted", report.accepted),
        ("audit: ended", report.ended),
        ("audit: dead", report.found["dead"]),
        ("audit: unproven", report.count("unproven")),
        ("audit: lost", report.count("lost")),
    ]
    checks = [
        (not report.suspects, f"the audit accuses: {report.suspects[:3]}"),
        (
            pushed <= report.accepted <= pushed + doubtful,
            f"{pushed} pushes returned and the journal has {report.accepted}",
        ),
    ]
    return rows, checks


def _dead(project: Project) -> dict[str, str]:
    """The dead letters' keys, and the error that each was buried for."""
    return {
        entry.key: str(read_reason(project.queue, entry).get("error")) for entry in project.names("dead_new")
    }


def _calls(facts: Facts) -> tuple[int, int]:
    """How many calls of the periodic task there are, and how many there are to be: one for each second."""
    if not facts.instants:
        return 0, 0
    layout, made = facts.project.layouts["run/ticks"], facts.project.path / "ticks"
    (folder,) = Path(layout.periodic).glob("*@*")
    (last,) = (int(name.partition(",")[0]) for name in os.listdir(folder))
    waiting = sum(scan.count(path) for path in (layout.new, layout.cur, layout.later_new, layout.dead_new))
    return made.stat().st_size + waiting, last - min(facts.instants) + 1


def _left_over(project: Project) -> dict[str, int]:
    queue = project.queue
    folders = {
        "new": queue.new,
        "cur": queue.cur,
        "tmp": queue.tmp,
        ".later/new": queue.later_new,
        ".later/cur": queue.later_cur,
        "leases": queue.leases,
    }
    return {name: scan.count(path) for name, path in folders.items()}
