"""A process that matches addresses for the threads of another one: see `process_client`, which runs this file by path.

It imports only small parts of the standard library, so that it starts in a few milliseconds. It ends when the other
end of its socket closes, at the latest at the limit of its current match.
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
# Each expression's groups; what is wrong; None if it takes longer.
Answer = list[list[Span] | None] | str | None


class _TooSlow(Exception):
    pass


def main(descriptor: int = 0) -> None:
    """Answer the questions that come over the socket, until it closes."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the thread that started this process may block some
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal: for the other process
    signal.signal(signal.SIGVTALRM, _end)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    try:
        while True:
            question: Question = marshal.loads(received(partial(os.read, descriptor)))
            _write(descriptor, framed(json.dumps(answer(*question)).encode()))
    except (EOFError, ConnectionError):
        return


def answer(expressions: list[tuple[str, int]], address: str, limit_seconds: float) -> Answer:
    """Match the address with each expression within the limit."""
    # The kernel ends this process if a question takes that long and does not react to the other signal.
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
    except Exception as fault:  # noqa: BLE001  # faults of `re` itself
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
    """The data with its length, as it is sent: a marshalled question, or an answer in JSON, which is safe to read."""
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def received(read: Callable[[int], bytes], most: int = _ENDLESS_BYTES) -> bytes:
    """The next message from the socket, by its `read`. Raises EOFError at its end, and what `read` raises.

    Raises ValueError for more bytes than `most`.
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
