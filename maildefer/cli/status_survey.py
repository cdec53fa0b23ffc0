"""What `status` shows, gathered within two seconds: each look in a process of its own, all at the same time."""

from __future__ import annotations

import ast
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from maildefer.cli.defaults import RUN
from maildefer.control import local_processes as control
from maildefer.control.local_processes import LocalStatus
from maildefer.control.queue_status import EntryCounts, read_queue_status
from maildefer.errors import ConfigurationError, MaildeferError, PermissionRefused
from maildefer.handling.project import finder
from maildefer.host import runtime_dir
from maildefer.host.bounded_call import CallFailed, TimedOut, bounded, side_by_side
from maildefer.host.identity import this_host
from maildefer.host.runtime_dir import RuntimeRecord

if TYPE_CHECKING:
    from maildefer.cli.process_usage import Usage

_MOST_BYTES = 1 << 20
SECONDS = 1.3  # and the rest of two seconds for the command itself


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSurvey:
    """The result of a survey: this host's processes, and each queue or why nothing is known of it."""

    local: list[tuple[LocalStatus, Usage | None]]
    queues: dict[str, EntryCounts | str]
    doubts: list[str]  # pid files whose queues are not believed, or `run` where it can't be read or hangs
    unread: bool  # some queue may not be looked at by this user: whether it is served is not known

    @property
    def own_leases(self) -> set[str]:
        """The leases of this host's pools, which answer for themselves."""
        answering = (one.record for one, _ in self.local if one.status is not None)
        return {lease for record in answering for lease in record.leases.values()}

    @property
    def kept_queues(self) -> set[str]:
        """The queues of sinks, which no pool serves."""
        return {queue for one, _ in self.local if one.record.kind == "log" for queue in one.record.queues}


def meant(pid: str | None, all_projects: bool = False) -> list[RuntimeRecord]:
    """The processes of this host that a command is about: of a pid file, of this project, or outside any project."""
    if pid is None:
        return records_meant(all_projects)()
    return [record for record in runtime_dir.records(this_host()) if record.pidfile == os.path.abspath(pid)]


def records_meant(all_projects: bool) -> Callable[[], list[RuntimeRecord]]:
    """A function that finds the processes of this project, or of all outside any, as often as it is called.

    Raises ConfigurationError where the variable that names the project does not.
    """
    if finder.PROJECT in os.environ and not all_projects:
        bounded(finder.named_project, SECONDS / 3)
    project = os.environ.get(finder.PROJECT) or os.getcwd()
    outside: list[bool] = []  # asked for once, since the answer is on a mount

    def find() -> list[RuntimeRecord]:
        records = runtime_dir.records(this_host())
        if all_projects or not records:
            return records
        if own := control.records_of_project(records, project):
            return own
        if not outside:
            outside.append(_is_outside())
        return records if outside[0] else own

    return find


def _is_outside() -> bool:
    """Whether the working directory is in no project; a mount that hangs counts as a project."""
    try:
        return bounded(finder.is_project, SECONDS / 3) is False
    except MaildeferError:
        return False


def look(records: list[RuntimeRecord], named: list[str] | None, *, elsewhere: bool) -> StatusSurvey:
    """Ask all processes and look at all queues at the same time, so that one that hangs delays no other."""
    known = queues_of(records, named)
    jobs: list[Callable[[], Any]] = [ask_of(record) for record in records]
    jobs += [partial(_usage, record.pid) for record in records]
    jobs += looks_at(known, elsewhere=elsewhere and not named)
    answers = iter(side_by_side(jobs, SECONDS))
    asked = [asked_of(record, answer) for record, answer in zip(records, answers, strict=False)]
    used = [None if isinstance(one, TimedOut | CallFailed) else one for one in islice(answers, len(records))]
    return survey_of(list(zip(asked, used, strict=True)), known, list(answers))


def queues_of(records: Iterable[RuntimeRecord], named: list[str] | None) -> list[str]:
    """The queues to look at: those that are named, else those of the processes."""
    return list(dict.fromkeys(map(os.path.abspath, named or [q for r in records for q in r.queues])))


def ask_of(record: RuntimeRecord) -> Callable[[], LocalStatus]:
    """A function that asks a process of this host for its status."""
    return partial(control.ask_process, record, SECONDS * 0.8)


def looks_at(known: Collection[str], *, elsewhere: bool) -> list[Callable[[], Any]]:
    """Functions that look at a queue each, and one that looks for queues that nothing of this host serves."""
    jobs: list[Callable[[], Any]] = [partial(read_queue_status, queue, SECONDS * 0.75) for queue in known]
    return [*jobs, partial(_elsewhere, known, SECONDS * 0.75)] if elsewhere else jobs


def survey_of(
    local: list[tuple[LocalStatus, Usage | None]], known: Sequence[str], looks: Sequence[object]
) -> StatusSurvey:
    """The survey of which `looks` are the answers of `looks_at`."""
    queues = {queue: _counts_or_problem(answer) for queue, answer in zip(known, looks, strict=False)}
    doubts: list[str] = []
    for answer in looks[len(known) :]:
        if isinstance(answer, _Elsewhere):
            queues |= answer.queues
            doubts = answer.doubts
        else:
            doubts = [f"{os.path.abspath(RUN)}: {_counts_or_problem(answer)}"]
    unread = any(isinstance(one, CallFailed) and isinstance(one.error, PermissionRefused) for one in looks)
    return StatusSurvey(local=local, queues=queues, doubts=doubts, unread=unread)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Elsewhere:
    queues: dict[str, EntryCounts | str]
    doubts: list[str]


def _elsewhere(known: Collection[str], seconds: float) -> _Elsewhere:
    """The queues of pid files in `run`, also of other hosts, and those that the settings write out."""
    deadline = time.monotonic() + seconds
    found: dict[str, EntryCounts | str] = {}
    named, doubts = control.queues_named(os.path.abspath(RUN))
    try:
        written = _written_out()
    except ConfigurationError:  # as `records_meant` says, where the project is asked for
        written = []
    for queue in dict.fromkeys([*named, *written]):
        if queue not in known:
            try:
                found[queue] = read_queue_status(queue, max(0.0, deadline - time.monotonic()))
            except MaildeferError as error:
                found[queue] = str(error)
    return _Elsewhere(queues=found, doubts=doubts)


def project_queues() -> list[str]:
    """The queues of pid files in `run` and those that the settings write out, as far as they are there."""
    named, _ = control.queues_named(os.path.abspath(RUN))
    return [queue for queue in dict.fromkeys([*named, *_written_out()]) if _may_be_there(queue)]


def _written_out() -> list[str]:
    """The existing queues with handlers whose paths the settings write as literals.

    No code of the project is run, so what its settings compute is not known here.
    """
    folder = finder.project()
    files = (os.path.join(folder, package, "settings.py") for package in finder.PACKAGES)
    file = next(filter(os.path.isfile, files), None)
    if file is None:
        return []
    try:
        with open(file, "rb") as source:
            named = _queues_in(ast.parse(source.read(_MOST_BYTES)))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # a pool will say what is wrong
        return []
    return [path for one in named if _may_be_there(path := os.path.normpath(os.path.join(folder, one)))]


def _may_be_there(queue: str) -> bool:
    """Whether there is a folder, or this user may not see whether there is: who looks into it is told of that."""
    try:
        return stat.S_ISDIR(os.stat(queue).st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def _queues_in(tree: ast.Module) -> list[str]:
    """The paths in `queues = {…}` and `queues["…"] = …`, but those without handlers; `handlers` are of `run/queue`."""
    found: dict[str, bool] | None = None
    has_handlers = False
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[target], value=value):
                pass
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                pass
            case _:
                continue
        match target, value:
            case ast.Name(id="queues"), ast.Dict(keys=keys, values=values):
                found = {}
                for key, modules in zip(keys, values, strict=True):
                    if isinstance(key, ast.Constant) and isinstance(key.value, str):
                        found[key.value] = _holds_any(modules)
            case ast.Subscript(value=ast.Name(id="queues"), slice=ast.Constant(value=str() as path)), _:
                found = {**(found or {}), path: _holds_any(value)}
            case ast.Name(id="handlers"), _:
                has_handlers = _holds_any(value)
    if found is None:
        return [f"{RUN}/queue"] if has_handlers else []
    return [path for path, has_modules in found.items() if has_modules]


def _holds_any(value: ast.expr) -> bool:
    """Whether a list may hold anything: a literal one that is empty does not."""
    return not (isinstance(value, ast.List | ast.Tuple) and not value.elts)


def asked_of(record: RuntimeRecord, answer: object) -> LocalStatus:
    """What a process has answered, or that it has not."""
    if isinstance(answer, LocalStatus):
        return answer
    problem = f"no answer within {SECONDS:g} s: it is stopped, or hangs"
    return LocalStatus(record=record, status=None, problem=problem)


def _counts_or_problem(answer: object) -> EntryCounts | str:
    match answer:
        case EntryCounts():
            return answer
        case TimedOut():
            hangs = "its filesystem hangs; this host's processes are as shown"
            return f"no answer within {answer.seconds:g} s: {hangs}"
        case CallFailed():
            return str(answer.error)
        case _:
            return f"no answer that can be understood: {answer}"


def _usage(pid: int) -> Usage | None:
    """The usage of a process, read in a process of its own: reading /proc hangs for a process stuck in a page fault."""
    from maildefer.cli import process_usage  # psutil, for those who have something to look at

    return process_usage.usage_of_tree(pid)
