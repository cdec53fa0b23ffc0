"""A process that matches addresses for another one's threads: see `matchers`, which executes this file by its path.

It needs nothing but the standard library's smallest parts, so that it comes up in a few milliseconds whatever the
program is. It ends when the other end of its socket closes, at the latest when its current match has had its limit.
"""

from __future__ import annotations

import json
import marshal
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Final

GUARD_SECONDS: Final = 20.0  # of processor time, for a question as a whole
_LENGTH_BYTES: Final = 8
_CHUNK_BYTES: Final = 1 << 20
_ENDLESS_BYTES: Final = 1 << 30

Span = tuple[int, int]
Question = tuple[list[tuple[str, int]], str, float]  # expressions with their flags, an address, seconds
Answer = (
    list[list[Span] | None] | str | None
)  # each expression's groups; what is wrong; None if it takes longer


class _TooSlow(Exception):
    pass


def main(descriptor: int = 0) -> None:
    """Answer what is asked over the socket, until it closes."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whatever the thread blocks that started us
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal: the other process's to hear
    signal.signal(signal.SIGVTALRM, _end)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        while True:
            question: Question = marshal.loads(received(partial(os.read, descriptor)))
            _write(descriptor, framed(json.dumps(answer(*question)).encode()))
    except (EOFError, ConnectionError):
        return


def answer(expressions: list[tuple[str, int]], address: str, limit_seconds: float) -> Answer:
    # The kernel ends this process if anything in it takes that long, and does not look for the other signal.
    signal.setitimer(signal.ITIMER_PROF, limit_seconds + GUARD_SECONDS)
    patterns = [_compiled(text, flags) for text, flags in expressions]
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, limit_seconds)
        try:
            found = [pattern.match(address) for pattern in patterns]
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except _TooSlow:
        return None
    except Exception as fault:  # noqa: BLE001  # `re` has faults of its own
        return repr(fault)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return [None if one is None else [one.span(group) for group in range(one.re.groups + 1)] for one in found]


@lru_cache(maxsize=4096)
def _compiled(text: str, flags: int) -> re.Pattern[str]:
    return re.compile(text, flags)


def _end(signum: int, frame: Any) -> None:
    raise _TooSlow


def framed(data: bytes) -> bytes:
    """As it goes over the socket: a marshalled question; its answer as JSON, of which nothing has to be believed."""
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def received(read: Callable[[int], bytes], most: int = _ENDLESS_BYTES) -> bytes:
    """What comes over the socket next, by its `read`. Raises EOFError at its end, and what `read` raises.

    Raises ValueError where it has more bytes than `most`.
    """
    size = int.from_bytes(_exactly(read, _LENGTH_BYTES), "big")
    if size > most:
        raise ValueError(f"{size} bytes")
    return _exactly(read, size)


def _exactly(read: Callable[[int], bytes], number: int) -> bytes:
    data = bytearray()
    while len(data) < number:
        chunk = read(min(number - len(data), _CHUNK_BYTES))
        if not chunk:
            raise EOFError
        data += chunk
    return bytes(data)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


if __name__ == "__main__":
    main()
    sys.exit()
