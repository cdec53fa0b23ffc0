"""The process that calls a project's policy: `python -m maildefer.handling.policy.process MODULE.FUNCTION FD`.

The front end starts it, holds the other end of the socket, and ends it when an answer takes too long: the project's
code is never in the process that talks to the network (I11), and can't delay it. Each line is a JSON object. The
process first sends `{"ready": true}` or `{"error": TEXT}`; then for each `{"number", "session", "sender", "recipient"}`
either `{"number", "reply": TEXT or null}`, or `{"number", "fault": TEXT}` for an exception, after which it goes on. A
function that checks passwords is called in the same way for each `{"number", "user", "password"}`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from maildefer import events
from maildefer.errors import ConfigurationError
from maildefer.handling.handler_check import never_runs, place_of
from maildefer.handling.handler_marks import is_async
from maildefer.handling.policy.decide import Session, decide
from maildefer.handling.project.module_loader import import_user_module
from maildefer.handling.results import ensure_run
from maildefer.host.linux.prctl import die_with_parent
from maildefer.host.linux.process_title import set_title

EX_CONFIG = 78
_MOST = 2000  # characters of the text of a fault
NOT_AUTHENTICATED = "535 5.7.8 authentication credentials invalid"


def main() -> int:
    """Run the process; returns 0 when the front end closes the socket, 78 if the policy can't be loaded."""
    parent, (name, descriptor) = os.getppid(), sys.argv[1:]
    die_with_parent(parent)
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):  # of a terminal, or meant for the front end
        signal.signal(signum, signal.SIG_IGN)
    events.configure()
    set_title(f"policy {name}")
    with socket.socket(fileno=int(descriptor)) as connection, connection.makefile("rwb") as stream:
        try:
            accept = load(name)
        except ConfigurationError as fault:
            _send(stream, {"error": f"{fault!s:.{_MOST}}{_hint(fault.__cause__)}"})
            return EX_CONFIG
        _send(stream, {"ready": True})
        for question in stream:
            asked = json.loads(question)
            _send(stream, {"number": asked["number"], **answer(accept, asked)})
    return 0


def load(name: str) -> Callable[..., Any]:
    """The function of that name. Raises ConfigurationError."""
    module_name, dot, function = name.rpartition(".")
    if not dot:
        raise ConfigurationError(
            f"receiver_config: {name!r}: give module.function, such as conf.policy.accept"
        )
    module = import_user_module(module_name, listed_in="receiver_config")
    accept: Any = getattr(module, function, None)
    if not callable(accept):
        raise ConfigurationError(f"receiver_config: {name}: {module_name} has no such function")
    if never_runs(accept) or is_async(accept):
        raise ConfigurationError(
            f"{place_of(accept)}: {name} is a coroutine or a generator, whose body no call runs: "
            "make it a plain function (receiver_config)"
        )
    return accept  # type: ignore[no-any-return]


def answer(accept: Callable[..., Any], question: dict[str, Any]) -> dict[str, str | None]:
    """The answer to one question."""
    try:
        if "user" in question:
            is_right = accept(question["user"], question["password"])
            ensure_run(accept, is_right)
            return {"reply": None if is_right is True else NOT_AUTHENTICATED}
        session = Session.of(question["session"])
        return {"reply": decide(accept, session, question["sender"], question["recipient"])}
    except Exception as fault:  # noqa: BLE001  # the project's code: whatever it raises, the client is to try again
        traceback.print_exc()
        return {"fault": f"{type(fault).__name__}: {fault!s:.{_MOST}}{_hint(fault)}"}


def _hint(fault: BaseException | None) -> str:
    """The remedy for an environment variable that the policy reads and the front end was not given."""
    trace = fault.__traceback__ if isinstance(fault, KeyError) else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_globals.get("__name__") != "os":
        return ""
    return f': a front end gets no variables but those of a list: name it in receiver_config["environment"] = [{fault}]'


def _send(stream: Any, message: Mapping[str, object]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
