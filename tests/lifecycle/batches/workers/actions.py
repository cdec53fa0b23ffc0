"""What a message's recipient says that the handler of its batch is to do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from maildefer.routing import Defer, Reject
from workers.deeds import DEEDS
from workers.journal import note


def handled(messages: list[Any]) -> dict[Any, Exception]:
    """Note the batch, then do for each of its messages what that says; the result is what is said for single ones."""
    note(f"batch{len(messages)}", messages[0])
    for message in messages:
        note("start", message)
    said = {}
    for message in messages:
        if (one := ACTIONS[message.captures["what"]](message.captures["argument"])) is not None:
            said[message] = one
    for message in messages:
        note("end", message)
    note(f"called{len(messages)}", messages[0])
    return said


def _defer_all(argument: str) -> None:
    raise Defer("not now", after=float(argument))


def _reject_all(argument: str) -> None:
    raise Reject("never")


def _once(argument: str) -> None:
    """The worker's death at the first attempt, nothing at the next."""
    if not os.path.exists("once"):
        open("once", "x").close()
        _kill("")


def _kill(argument: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ACTIONS: dict[str, Callable[[str], Any]] = {
    **DEEDS,
    "quick": lambda argument: None,
    "deferall": _defer_all,
    "deferone": lambda argument: Defer("not this one", after=float(argument)),
    "rejectall": _reject_all,
    "rejectone": lambda argument: Reject("not this one"),
    "kill": _kill,
    "once": _once,
}
