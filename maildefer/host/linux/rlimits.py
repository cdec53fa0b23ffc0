"""How many files and connections this process may have open."""

from __future__ import annotations

import resource


def allow_descriptors(count: int) -> int:
    """Raise the soft limit to so many where it is lower, as far as the hard limit allows; returns what is allowed.

    Children inherit it. For processes that wait with epoll(7): select(2), for which the soft limit is mostly 1024,
    can't take higher numbers.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= count:
        return count
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(wanted, soft)
