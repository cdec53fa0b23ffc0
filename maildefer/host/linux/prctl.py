"""prctl(2), for which the standard library has no name: the signal at the parent's death, privileges; the boot clock.

ctypes costs 0.45 MB, once: the supervisor loads it before it forks, and its children share the pages.
"""

from __future__ import annotations

import os
import signal
import time
from ctypes import CDLL, byref, c_int, c_ulong, get_errno
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PR_GET_PDEATHSIG: Final = 2
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES: Final = 64
_prctl = CDLL(None, use_errno=True).prctl  # resolved before any fork
_prctl.restype = c_int


def die_with_parent(parent: int, signum: int = signal.SIGKILL) -> None:
    """Have the kernel send `signum` to this process when its parent ends; called by every child, first thing.

    `parent` is the parent's pid as the parent itself saw it before the fork. If it has ended already, there is nobody
    whose end could be signalled any more, so the signal is raised at once. Kept across exec, lost in one's own forks.
    The kernel watches the *thread* that forked: fork children from a thread that lives as long as the process.
    """
    if _prctl(c_int(_PR_SET_PDEATHSIG), c_ulong(signum), c_ulong(0), c_ulong(0), c_ulong(0)):
        code = get_errno()
        raise OSError(code, f"prctl(PR_SET_PDEATHSIG): {os.strerror(code)}")
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def death_signal() -> int:
    """The signal that this process gets when its parent ends, 0 for none."""
    signum = c_int(0)
    if _prctl(c_int(_PR_GET_PDEATHSIG), byref(signum), c_ulong(0), c_ulong(0), c_ulong(0)):
        code = get_errno()
        raise OSError(code, f"prctl(PR_GET_PDEATHSIG): {os.strerror(code)}")
    return signum.value


def adopt_orphans() -> None:
    """Become the parent of each process below this one whose parent ends; not inherited, but kept across exec.

    Else it would be a child of init, where it is not found again. Raises OSError in a sandbox that does not allow it.
    """
    if _prctl(c_int(_PR_SET_CHILD_SUBREAPER), c_ulong(1), c_ulong(0), c_ulong(0), c_ulong(0)):
        code = get_errno()
        raise OSError(code, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(code)}")


def set_no_new_privileges() -> None:
    """Let no program that this process executes get more rights than the process has; inherited for good."""
    _prctl(c_int(_PR_SET_NO_NEW_PRIVS), c_ulong(1), c_ulong(0), c_ulong(0), c_ulong(0))


def empty_bounding_set() -> None:
    """Let no program that is executed from now on get a capability, where this process may decide that."""
    for capability in range(_CAPABILITIES):
        if _prctl(c_int(_PR_CAPBSET_DROP), c_ulong(capability), c_ulong(0), c_ulong(0), c_ulong(0)):
            return  # the kernel has no more, or this root may not


def boottime() -> float:
    """Seconds since the boot, counting suspension: what observers time other hosts' leases by."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
