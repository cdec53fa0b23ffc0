"""`python -m maildefer.pool OPTIONS`: become the supervisor. Executed by `maildefer supervise`."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace

from maildefer import events
from maildefer.errors import ConfigurationError, MaildeferError
from maildefer.handling.project.settings import SENDS, PoolSettings
from maildefer.host import runtime_dir, status_socket
from maildefer.host.identity import this_host
from maildefer.host.linux import shared_heap
from maildefer.host.linux.prctl import adopt_orphans
from maildefer.host.linux.process_locks import ProcessLocks
from maildefer.host.linux.process_title import set_title
from maildefer.host.linux.signal_stack import StackDumps
from maildefer.pool.context import PoolContext
from maildefer.pool.counts.memory import CountsMemory
from maildefer.pool.messages import pair
from maildefer.pool.options import PoolOptions
from maildefer.pool.probe import Probe, ProbeReport
from maildefer.pool.scoreboard import BATCH_CHANNELS, Scoreboard
from maildefer.pool.supervisor.startup_terminal import StartupTerminal
from maildefer.pool.supervisor.supervisor import Supervisor
from maildefer.pool.worker import offers

EX_CONFIG = 78


def main() -> int:
    """Probe the application, lay out what the processes share, and supervise; returns the exit code."""
    terminal = StartupTerminal(None)
    try:
        options = PoolOptions.parse(sys.argv[1] if len(sys.argv) > 1 else "")
        terminal = StartupTerminal(options.log_file)
        events.configure(options.log_format, log_file=options.log_file, level=options.log_level)
        if options.lock_fd >= 0:
            os.set_inheritable(options.lock_fd, False)
        report = Probe(options.project).wait()
        options.configure_log(options.settings(report))
        adopt_orphans()  # workers, once their template's child between has ended
        supervisor = Supervisor(*assemble(options, report))
    except ConfigurationError as fault:
        events.emit(
            "application.broken", error=str(fault), detail="\n".join(getattr(fault, "__notes__", [])) or None
        )
        terminal.report_failure(str(fault))
        return EX_CONFIG
    except (MaildeferError, OSError) as fault:
        events.emit("pool.stopped", reason=str(fault))
        terminal.report_failure(str(fault))
        return 1
    os.chdir("/")  # from here on a mount that hangs does not hang this process
    shared_heap.freeze()
    set_title(f"supervisor {options.pidfile}")
    if code := supervisor.run():
        terminal.report_failure(supervisor.drain.reason)
    return code


_FEWEST_SLOTS = 128  # room for more workers later; slots that are never used take no memory


def assemble(
    options: PoolOptions, report: ProbeReport
) -> tuple[PoolContext, PoolOptions, ProbeReport, socket.socket]:
    """Make everything that the supervisor and its children share. Raises ConfigurationError."""
    settings = options.settings(report)
    options = replace(options, project=settings.project)
    queues = options.served(settings, report.routes)
    slots = max(_FEWEST_SLOTS, 2 * settings.workers + 16)
    context = PoolContext(
        settings=settings,
        project=options.project,
        pidfile=options.pidfile,
        host=this_host(),
        queues=queues,
        board=Scoreboard(len(queues), slots),
        offers=tuple(offers.channel() for _ in queues),
        gathering=tuple(pair() for _ in range(BATCH_CHANNELS)),
        locks=ProcessLocks(),
        keeper=pair(identified=True),
        deferrals=pair(identified=True),
        not_paused=os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC),
        supervisor=os.getpid(),
        counts=_counts(slots, settings),
        dumps=_dumps(slots),
        force=options.force,
    )
    return context, options, report, status_socket.listen_at(runtime_dir.socket_path(options.pidfile))


def _counts(slots: int, settings: PoolSettings) -> CountsMemory | None:
    """What is counted: all for a pool that is watched; else of mail that goes out alone, for `outgoing`."""
    is_watched = bool(settings.health_config or settings.alerts)
    sends = any(SENDS in modules for modules in settings.queues.values())
    return CountsMemory(slots, counts_attempts=is_watched) if is_watched or sends else None


def _dumps(slots: int) -> StackDumps | None:
    try:
        return StackDumps(slots)
    except OSError:  # a limit on the size of files, a kernel without memfds: dumps go to standard error
        return None


if __name__ == "__main__":
    sys.exit(main())
