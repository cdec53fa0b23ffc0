"""Messages between the supervisor and a template, as types; a template that sends what is none of these is ended."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass
from typing import Final

_MOST_BYTES: Final = 1000  # of an order
_MOST_CHARACTERS: Final = 4000  # of a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkWorker:
    """Fork the worker of that slot; the descriptor of the file for its output comes with it."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateReady:
    """The application is loaded, and workers can be forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateUnfit:
    """The application has open, once it is loaded, what workers can't share."""

    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateBroken:
    """The application can't be loaded."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerForked:
    """The worker of that slot waits to be registered by the supervisor, which is its parent."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkFailed:
    """There is no worker for that slot."""

    slot: int
    why: str


FromTemplate = TemplateReady | TemplateUnfit | TemplateBroken | WorkerForked | ForkFailed


def order(sock: socket.socket, message: ForkWorker, output: int) -> bool:
    """Send an order to a template, without blocking; False when it did not go."""
    descriptors = [output] if output >= 0 else []
    try:
        socket.send_fds(sock, [json.dumps(asdict(message)).encode()], descriptors, socket.MSG_DONTWAIT)
    except OSError:  # full, or nobody is there
        return False
    return True


def next_order(sock: socket.socket) -> tuple[ForkWorker, int] | None:
    """Wait for an order, and return it with the descriptor of the output, or -1; None when the supervisor is gone."""
    data, descriptors, _, _ = socket.recv_fds(sock, _MOST_BYTES, 1)
    if not data:
        return None
    return ForkWorker(**json.loads(data)), next(iter(descriptors), -1)


def tell(sock: socket.socket, message: FromTemplate) -> None:
    """Send a message to the supervisor. Raises OSError."""
    sock.send(json.dumps(_record_of(message)).encode())


def _record_of(message: FromTemplate) -> dict[str, object]:
    match message:
        case TemplateReady():
            return {"ready": True}
        case TemplateUnfit(found=found):
            return {"found": found[:_MOST_CHARACTERS]}
        case TemplateBroken(why=why):
            return {"broken": why[:_MOST_CHARACTERS]}
        case WorkerForked(slot=slot, pid=pid):
            return {"slot": slot, "pid": pid}
        case ForkFailed(slot=slot, why=why):
            return {"slot": slot, "failed": why[:_MOST_CHARACTERS]}


def from_template(record: dict[str, object]) -> FromTemplate | None:
    """Parse what a template says to the supervisor."""
    match record:
        case {"ready": True}:
            return TemplateReady()
        case {"found": str(found)}:
            return TemplateUnfit(found=found[:_MOST_CHARACTERS])
        case {"broken": str(why)}:
            return TemplateBroken(why=why[:_MOST_CHARACTERS])
        case {"slot": int(slot), "pid": int(pid)} if pid > 1:
            return WorkerForked(slot=slot, pid=pid)
        case {"slot": int(slot), "failed": str(why)}:
            return ForkFailed(slot=slot, why=why[:_MOST_CHARACTERS])
    return None
