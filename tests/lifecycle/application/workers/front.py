"""Handlers whose recipient says what they are to do: `sleep0.5@test`, `exit3@test`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maildefer.queue import Queue
from maildefer.routing import Defer, Reject, route, stateless
from workers.deeds import DEEDS
from workers.journal import note

hoard: list[bytearray] = []


@route("(what)(argument)@test")
@stateless
def HANDLE(message: Any, what: str, argument: str) -> str | None:
    note("start", message)
    result = ACTIONS[what](argument)
    note("end", message)
    return result


def _defer(argument: str) -> None:
    raise Defer("not now", after=float(argument))


def _later(argument: str) -> None:
    """Another message, for so many seconds later."""
    Queue("run/queue").push("Subject: x\n\n", sender="", recipient="quick@test", after=float(argument))


def _reject(argument: str) -> None:
    raise Reject("never")


def _broken_pipe(argument: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        os.write(writer, b"x")
    except BrokenPipeError:
        return
    finally:
        os.close(writer)


def _stubborn(argument: str) -> None:
    """Hangs, and does not even end by ABRT."""
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    time.sleep(3600)


def _family(argument: str) -> None:
    """Children of each kind that the kernel tells apart."""
    _start("child")
    _start("session", lambda: os.setsid())
    _start("orphan", lambda: os.fork() and os._exit(0))
    _start("daemon", lambda: os.setsid() and None, lambda: os.fork() and os._exit(0), lambda: os.setsid())
    for name in ("child", "session", "orphan", "daemon"):
        while not os.path.exists(f"family.{name}"):
            time.sleep(0.005)


def _start(name: str, *steps: Callable[[], object]) -> None:
    if os.fork():
        return
    for step in steps:
        step()
    Path(f"{name}.draft").write_text(str(os.getpid()))
    os.rename(f"{name}.draft", f"family.{name}")
    time.sleep(3600)
    os._exit(0)


def _once(argument: str) -> None:
    """The worker's death at the first attempt, nothing at the next."""
    if not os.path.exists("once"):
        open("once", "x").close()
        os.kill(os.getpid(), signal.SIGKILL)


def _print(argument: str) -> None:
    """In every way there is; with an argument, and then never to come back, or to wait."""
    print("printed", argument)
    os.write(1, b"written\n")
    subprocess.run(["echo", "by a child"], check=True)
    logging.getLogger("blog").info("logged")
    if argument == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if argument == "wait":
        DEEDS["wait"]("")


def _move(argument: str) -> None:
    os.chdir("run")
    raise Reject("moved")


ACTIONS: dict[str, Callable[[str], Any]] = {
    **DEEDS,
    "quick": lambda argument: None,
    "defer": _defer,
    "later": _later,
    "reject": _reject,
    "move": _move,
    "handoff": lambda argument: "workers.back.HANDLE",
    "grow": lambda argument: hoard.append(bytearray(int(argument) << 20)),
    "brokenpipe": _broken_pipe,
    "once": _once,
    "print": _print,
    "printdie": lambda argument: _print("die"),
    "printwait": lambda argument: _print("wait"),
    "family": _family,
    "familyhang": lambda argument: (_family(argument), time.sleep(3600)),
    "familystubborn": lambda argument: (_family(argument), _stubborn(argument)),
    "familysegfault": lambda argument: (_family(argument), DEEDS["segfault"](argument)),
    "stubborn": _stubborn,
}
