"""Child processes: forked for the pool's own, executed for what must not share our memory."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from maildefer import events
from maildefer.host.linux.descendants import ProcessEntry
from maildefer.host.linux.prctl import die_with_parent, set_no_new_privileges
from maildefer.pool.scoreboard import ProcessKind

Killed = Literal["", "drain", "fence", "timeout", "recycled", "retired"]
_ALL = set(signal.valid_signals())
# A terminal sends these to the whole group; one may come before a child has set up its own handler, or be meant for the
# supervisor.
_FOR_THE_SUPERVISOR = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


@dataclass(slots=True, kw_only=True)
class ChildProcess:
    """A child process as the supervisor knows it."""

    pid: int
    kind: ProcessKind
    slot: int
    number: int  # for people: worker 3
    generation: int = 0  # of the application
    began: float = field(default=0.0)  # boot clock
    retiring: bool = False  # was told to end
    killed: Killed = ""
    aborted_at: float = 0.0
    is_shared: bool = False  # the application's memory, with the template
    handled: int = 0  # messages, when the supervisor last looked
    rested_since: float = 0.0  # when that last changed, or it was busy: on the boot clock
    misbehaved: bool = False  # was killed for an invalid message or slot
    output: int = -1  # the file of what its handlers print
    family: frozenset[ProcessEntry] = frozenset()  # what its handlers had started when it was killed


def fork(main: Callable[[], int]) -> int:
    """Fork a child that runs `main` and ends with its code; returns the pid. Called from the main thread only.

    Signals are blocked meanwhile, so that none meets the parent's handlers in the child. Raises OSError.
    """
    parent = os.getpid()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        pid = os.fork()
    except OSError:  # EAGAIN, ENOMEM: signals must not stay blocked
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def child() -> int:
        _set_up_child(parent)
        return main()

    end_with(child)


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run `main` in a process that was forked, and end it with that code; with 1, printed, for what `main` raises."""
    code = 1
    try:
        code = main()
    except BaseException:  # noqa: BLE001  # nothing above catches it: print it, and end as a failure
        traceback.print_exc()
    finally:
        try:
            sys.stderr.flush()
        finally:
            os._exit(code)


def how_died(code: int) -> str:
    """Describe an exit code, as `waitstatus_to_exitcode` gives it, for people."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def spawn(
    argv: Sequence[str],
    *,
    cwd: str,
    environ: Mapping[str, str] | None = None,
    stdout: int = -1,
    keep: Sequence[int] = (),
    hold: Collection[signal.Signals] = (),
    confined: bool = False,
) -> int:
    """Execute a program as a child that ends with us; returns the pid. `keep` are descriptors it inherits.

    `hold` are signals that stay blocked until it has handlers for them. A `confined` program can gain no rights.
    """

    def main() -> int:
        os.chdir(cwd)
        if events.descriptor() != 2:
            os.dup2(events.descriptor(), 2)
        if stdout >= 0:
            os.dup2(stdout, 1)
        for descriptor in keep:
            os.set_inheritable(descriptor, True)
        signal.pthread_sigmask(signal.SIG_BLOCK, hold)
        if confined:
            set_no_new_privileges()
        os.execve(argv[0], list(argv), dict(environ if environ is not None else os.environ))

    return fork(main)


def read_only_memory(name: str) -> tuple[int, int]:
    """Make a file in memory that children only read: two descriptors, to write to it and to read it.

    By the second nobody but the file's owner can open it to be written to, whatever user a child becomes, so that what
    one child breaks is no other's.
    """
    writer = os.memfd_create(name)
    os.fchmod(writer, 0o444)
    return writer, os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)


def _set_up_child(parent: int) -> None:
    """Set a child's signals to their defaults, and have it end with its parent."""
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGCONT):
        signal.signal(signum, signal.SIG_DFL)
    for signum in _FOR_THE_SUPERVISOR:
        signal.signal(signum, _ignore)
    die_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _ignore(signum: int, frame: object) -> None:
    """Do nothing. Not SIG_IGN, which the programs that handlers execute would inherit."""
