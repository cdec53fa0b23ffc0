"""Messages between the supervisor and a template, as types; a template that sends what is none of these is ended."""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from typing import Final

_MOST_BYTES: Final = 1000  # of an order
_ONE_DESCRIPTOR: Final = socket.CMSG_LEN(4)
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
        socket.send_fds(sock, [b"%d %d" % (message.slot, message.number)], descriptors, socket.MSG_DONTWAIT)
    except OSError:  # full, or nobody is there
        return False
    return True


def next_order(sock: socket.socket) -> tuple[ForkWorker, int] | None:
    """Wait for an order, and return it with the descriptor of the output, or -1; None when the supervisor is gone."""
    data, descriptors, _, _ = sock.recvmsg(_MOST_BYTES, _ONE_DESCRIPTOR)
    if not data:
        return None
    slot, number = map(int, data.split())
    output = int.from_bytes(descriptors[0][2], sys.byteorder) if descriptors else -1
    return ForkWorker(slot=slot, number=number), output


def tell(sock: socket.socket, message: FromTemplate) -> None:
    """Send a message to the supervisor. Raises OSError."""
    sock.send(_bytes_of(message))


def _bytes_of(message: FromTemplate) -> bytes:
    record: dict[str, object]
    match message:
        case WorkerForked(slot=slot, pid=pid):
            return b'{"slot": %d, "pid": %d}' % (slot, pid)  # by little code: see `ReadyTemplate`
        case ForkFailed(slot=slot, why=why):
            record = {"slot": slot, "failed": why[:_MOST_CHARACTERS]}
        case TemplateReady():
            record = {"ready": True}
        case TemplateUnfit(found=found):
            record = {"found": found[:_MOST_CHARACTERS]}
        case TemplateBroken(why=why):
            record = {"broken": why[:_MOST_CHARACTERS]}
    return json.dumps(record).encode()


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
