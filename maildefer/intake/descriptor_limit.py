"""Descriptors for as many connections as the limits allow."""

from __future__ import annotations

from typing import Final

from maildefer import events
from maildefer.host.linux.rlimits import allow
from maildefer.intake.limits import Limits

_FOR_OURSELVES: Final = 200  # sockets, lines, policies; and those who are just being refused


def prepare(limits: Limits) -> None:
    """Before there is any: a process mostly starts with 1,024, and may have more. Says so where it may not."""
    wanted = limits.max_connections + _FOR_OURSELVES
    if (allowed := allow(wanted)) < wanted:
        events.emit(
            "intake.cramped",
            reason=f"{allowed} descriptors, and max_connections is {limits.max_connections}: raise the hard limit "
            f"to {wanted} (ulimit -Hn, LimitNOFILE=), or lower max_connections",
        )
