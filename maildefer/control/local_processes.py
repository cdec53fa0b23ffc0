"""Finding the processes of this host behind pid files, to signal them or to ask for their status, for commands.

The runtime directory's records come first; a pid file on a mount is read in a child with a time limit, so that a hung
mount can't hang the command. For the command line only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from maildefer.control import pidfile_proof
from maildefer.control.health import Judge
from maildefer.control.requests import Verb
from maildefer.errors import MaildeferError, NotRunning, PidFileUnusable
from maildefer.host import pidfile as pidfiles
from maildefer.host import runtime_dir, status_socket
from maildefer.host.bounded_call import TimedOut, bounded
from maildefer.host.identity import HostIdentity, this_host
from maildefer.host.linux.pidfd import PidfdProcess
from maildefer.host.pidfile import PidFile, Verdict
from maildefer.host.runtime_dir import RuntimeRecord
from maildefer.maildir.due import mount_offset
from maildefer.maildir.layout import Layout

_BOOT_SLACK_SECONDS: Final = 2.0
SIGNALS: Final[dict[Verb, signal.Signals]] = {
    "stop": signal.SIGTERM,
    "pause": signal.SIGTSTP,
    "resume": signal.SIGCONT,
    "reload": signal.SIGHUP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PidFileStatus:
    """A pid file and the process that it names; or a directory of pid files that could not be read."""

    path: str
    verdict: Verdict | Literal["unusable", "no-answer"]
    pidfile: PidFile | None = None
    record: RuntimeRecord | None = None
    problem: str = ""  # for "unusable", "no-answer", and what is "unverified" for want of a proof

    @property
    def process(self) -> PidFile:
        assert self.pidfile is not None, f"{self.verdict} names no process"
        return self.pidfile


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStatus:
    """One running process of this host and its status; `problem` says why there is none."""

    record: RuntimeRecord
    status: dict[str, object] | None
    problem: str = ""


def find_processes(directory: str) -> list[PidFileStatus]:
    """Find every pid file in a directory, and every process of this host whose pid file belongs there, by path.

    If the mount does not answer, this host's processes are found all the same, and one PidFileStatus with the verdict
    "no-answer" stands for the directory. Raises NotRunning if there is no such directory and nothing runs there.
    """
    host, directory = this_host(), os.path.abspath(directory)
    there = [one for one in runtime_dir.records(host) if os.path.dirname(one.pidfile) == directory]
    found = {one.pidfile: _by_record(one, host) for one in there}
    listed: dict[str, PidFile | str] | TimedOut = {}
    try:
        listed = bounded(lambda: _read_directory(directory))
    except FileNotFoundError:
        if not found:
            raise NotRunning(
                f"there is no directory {directory}: give the one that holds the pid files"
            ) from None
    except OSError as fault:
        problem = fault.strerror or str(fault)
        found[directory] = PidFileStatus(path=directory, verdict="no-answer", problem=problem)
    if isinstance(listed, TimedOut):
        found[directory] = _no_answer(directory, listed)
        return [found[path] for path in sorted(found)]
    for path, content in listed.items():
        if path not in found:
            found[path] = _by_content(path, content, host)
    return [found[path] for path in sorted(found)]


def queues_named(directory: str) -> tuple[list[str], list[str]]:
    """The queues that the pid files in a directory name, and the pid files that are not believed, and why.

    Only root's and this user's own are. It touches the mount, and hangs with it.
    """
    try:
        contents = _read_directory(directory)
    except FileNotFoundError:
        return [], []
    except OSError as fault:
        why = f"{fault.strerror}: what other hosts serve is not known; name the queues"
        return [], [f"{directory}: {why}"]
    files = {path: one for path, one in contents.items() if isinstance(one, PidFile) and one.queues}
    queues = [queue for one in files.values() if pidfile_proof.is_trusted(one) for queue in one.queues]
    doubts = [
        f"{path}: {_not_believed(one)}" for path, one in files.items() if not pidfile_proof.is_trusted(one)
    ]
    return list(dict.fromkeys(queues)), doubts


def _not_believed(file: PidFile) -> str:
    owner = pidfile_proof.owner_text(file)
    return f"it is of {owner}, and its queues are not believed: name them, or run this as that user"


def find_process(path: str) -> PidFileStatus:
    """Find the process of one pid file. Raises NotRunning if there is neither the file nor a process."""
    host, path = this_host(), os.path.abspath(path)
    for record in runtime_dir.records(host):
        if record.pidfile == path:
            return _by_record(record, host)
    content = bounded(lambda: _read(path))
    if isinstance(content, TimedOut):
        return _no_answer(path, content)
    if content is None:
        raise NotRunning(f"there is no pid file {path}: nothing was started with it, or it has ended")
    return _by_content(path, content, host)


def find_or_suggest(path: str) -> PidFileStatus:
    """Find the process of one pid file. Raises NotRunning, which names the processes that run on this host."""
    try:
        return find_process(path)
    except NotRunning as error:
        here = [record.pidfile for record in runtime_dir.records(this_host())]
        if not here:
            raise
        raise NotRunning(f"{error}; what runs on this host has these: {', '.join(here)}") from None


def must_run(found: PidFileStatus) -> None:
    """Raise NotRunning unless the pid file is known to be of a process of this host that runs."""
    if found.verdict != "running":
        why = found.problem or found.verdict
        raise NotRunning(f"nothing of this host is known to run with the pid file {found.path} ({why})")


def signal_process(found: PidFileStatus, verb: Verb) -> str:
    """Send a verb's signal to a running process of this host; returns a sentence. Raises NotRunning, MaildeferError.

    A process that has no handler for the signal is left alone: HUP would end it, TSTP freeze it.
    """
    must_run(found)
    pid, signum = found.process.pid, SIGNALS[verb]
    try:
        process = PidfdProcess(pid, found.process.start_time)
        try:
            if verb != "stop" and not process.takes(signum):
                what = f"process {pid} of {found.path} does not take `{verb}`"
                raise MaildeferError(f"{what}: restart it instead")
            process.send(signum)
        finally:
            process.close()
    except (ProcessLookupError, FileNotFoundError):
        raise NotRunning(f"process {pid} of {found.path} has just ended") from None
    except PermissionError as fault:
        raise MaildeferError(
            f"process {pid} of {found.path} belongs to another user: use that one, or root"
        ) from fault
    return f"sent {signum.name} to process {pid} of {found.path}"


def is_a_clones(pidfile: PidFile) -> bool:
    """Whether a process of this host's name and another boot wrote its status after this boot, so is of a clone.

    Both are the mount's times, so that no clock of a host matters. Touches the mount, and hangs with it.
    """
    for layout in map(Layout, pidfile.queues):
        try:
            written_at = os.stat(f"{layout.status}/{pidfile.lease}.json").st_mtime
            # `least` is the mount's time when we were booted.
            if written_at > mount_offset(layout).least + _BOOT_SLACK_SECONDS:
                return True
        except OSError:  # no such lease, or no queue: nobody tells
            pass
    return False


def records_of_project(records: Iterable[RuntimeRecord], folder: str) -> list[RuntimeRecord]:
    """The processes of the project in which this folder is; by paths alone, so that no mount is looked at."""
    run, records = os.path.join(folder, "run"), list(records)
    around = {one.project for one in records if one.project and f"{folder}/".startswith(f"{one.project}/")}
    nearest = max(around, key=len, default=None)
    return [one for one in records if os.path.dirname(one.pidfile) == run or one.project == nearest]


def ask_process(record: RuntimeRecord, seconds: float = 2.0) -> LocalStatus:
    """Ask one process for its status, in bounded time."""
    if record.status_socket is None:
        return LocalStatus(record=record, status=None, problem="it answers no questions")
    try:
        return LocalStatus(record=record, status=status_socket.ask_status(record.status_socket, seconds))
    except TimeoutError:
        problem = f"no answer within {seconds:g} s: it is stopped, or hangs"
        return LocalStatus(record=record, status=None, problem=problem)
    except (OSError, ValueError) as fault:
        return LocalStatus(record=record, status=None, problem=str(fault))


def problems_of(answer: object, judge: Judge) -> list[str]:
    """What is wrong with a process by its answer, which may be no LocalStatus: a call that took too long, or failed."""
    if answer is None:
        return ["nothing runs with this pid file"]
    if not isinstance(answer, LocalStatus):
        return ["no answer in time: it is stopped, or hangs"]
    if answer.record.status_socket is None:  # it answers no questions, and need not
        return []
    return [answer.problem] if answer.status is None else judge(answer.status)


def remove_pidfile(found: PidFileStatus) -> str:
    """Remove the pid file, in bounded time, if it still means that process; says what went wrong, if anything did."""
    try:
        removed = bounded(lambda: pidfiles.remove(found.path, found.process))
    except (OSError, MaildeferError) as fault:
        return str(fault)
    return "the filesystem does not answer" if isinstance(removed, TimedOut) else ""


def _by_record(record: RuntimeRecord, host: HostIdentity) -> PidFileStatus:
    pidfile = pidfiles.for_process(
        record.pid,
        host,
        start_time=record.start_time,
        kind=record.kind,
        lease=next(iter(record.leases.values()), None),
        queues=record.queues,
        started=record.started,
    )
    return PidFileStatus(path=record.pidfile, verdict="running", pidfile=pidfile, record=record)


def _by_content(path: str, content: PidFile | str, host: HostIdentity) -> PidFileStatus:
    if isinstance(content, str):
        return PidFileStatus(path=path, verdict="unusable", problem=content)
    verdict = pidfiles.verify(content, host)
    if verdict == "running":
        if problem := pidfile_proof.why_doubted(content):
            return PidFileStatus(path=path, verdict="unverified", pidfile=content, problem=problem)
    elif verdict in ("other-host", "unproven") and not pidfile_proof.is_trusted(content):
        return PidFileStatus(path=path, verdict="unverified", pidfile=content, problem=_not_believed(content))
    return PidFileStatus(path=path, verdict=verdict, pidfile=content)


def _no_answer(path: str, late: TimedOut) -> PidFileStatus:
    problem = f"the filesystem did not answer within {late.seconds:g} s; only what runs on this host is known"
    return PidFileStatus(path=path, verdict="no-answer", problem=problem)


def _read_directory(directory: str) -> dict[str, PidFile | str]:
    contents: dict[str, PidFile | str] = {}
    for name in os.listdir(directory):
        if name.endswith(".pid") and not name.startswith("."):
            path = os.path.join(directory, name)
            content = _read(path)
            if content is not None:
                contents[path] = content
    return contents


def _read(path: str) -> PidFile | str | None:
    try:
        return pidfiles.read(path)
    except PidFileUnusable as error:
        return str(error)
    except NotRunning:  # removed by its process meanwhile
        return None
