"""What a message's recipient says that the handler of its batch is to do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from maildefer.routing import Defer, Reject
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


def _wait(argument: str) -> None:
    """Until the test says so."""
    while not os.path.exists("go"):
        time.sleep(0.005)


def _defer_all(argument: str) -> None:
    raise Defer("not now", after=float(argument))


def _reject_all(argument: str) -> None:
    raise Reject("never")


def _fail(argument: str) -> None:
    raise RuntimeError("it broke")


def _once(argument: str) -> None:
    """The worker's death at the first attempt, nothing at the next."""
    if not os.path.exists("once"):
        open("once", "x").close()
        _kill("")


def _kill(argument: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _forget_child(argument: str) -> None:
    """A child that comes back from the handler, as after a careless fork."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)


ACTIONS: dict[str, Callable[[str], Any]] = {
    "quick": lambda argument: None,
    "sleep": lambda argument: time.sleep(float(argument)),
    "wait": _wait,
    "hang": lambda argument: time.sleep(3600),
    "deferall": _defer_all,
    "deferone": lambda argument: Defer("not this one", after=float(argument)),
    "rejectall": _reject_all,
    "rejectone": lambda argument: Reject("not this one"),
    "fail": _fail,
    "kill": _kill,
    "once": _once,
    "fork": _forget_child,
}
