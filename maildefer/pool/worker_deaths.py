"""Deaths of workers: noted on the scoreboard by the supervisor, read for the log and for the reason of a burial.

On the scoreboard a death outlives the keeper, and stays until the dead worker's slot is cleared.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Final

from maildefer.host.linux.signal_stack import StackDumps
from maildefer.maildir.reasons import Death
from maildefer.maildir.system import boottime
from maildefer.pool.scoreboard import Scoreboard
from maildefer.pool.scoreboard_views import SlotView

_EXCEPTION: Final = 1 << 32  # no wait status: its program left the consumer with an exception
_MOST_STATUS: Final = 0xFFFF  # wait(2)
_SIGNALS: Final = frozenset(map(int, signal.valid_signals()))
_MOST_STACK: Final = 16_000
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_CALLERS: Final = ("handling/run_handlers.py", "handling/calls/batch.py", "pool/worker/in_flight/flights.py")
_CALLER: Final = re.compile(
    "|".join(f'  File "{re.escape(_PACKAGE)}/{re.escape(file)}"' for file in _CALLERS)
)


def note_death(
    board: Scoreboard, slot: int, status: int, dumps: StackDumps | None, *, limit_seconds: float = 0.0
) -> Death:
    """Note the wait status of a slot's process; with a limit, that it was ended for being over it."""
    _note(board, slot, status + 1)
    SlotView(board, slot).limit_seconds = limit_seconds
    death = read_death(board, slot, dumps)
    assert death is not None
    return death


def note_exception(board: Scoreboard, slot: int) -> None:
    """Note that the program in that slot goes on, but has given up what it held."""
    _note(board, slot, _EXCEPTION)


def _note(board: Scoreboard, slot: int, word: int) -> None:
    child = SlotView(board, slot)
    child.died = boottime()
    child.exit_word = word


def read_death(board: Scoreboard, slot: int, dumps: StackDumps | None) -> Death | None:
    """Read what is known of the death of a slot's process; None where none was noted."""
    child = SlotView(board, slot)
    if not (word := child.exit_word):
        return None
    if word == _EXCEPTION:
        return Death(how="by an exception of its program")
    stack = _of_handlers(dumps.read(slot))[:_MOST_STACK] if dumps is not None else ""
    seconds = round(child.died - child.began, 3) if child.began else None
    return Death(
        how=_how(_exit_code(word - 1), child.limit_seconds, seconds),
        handler=board.handler(slot) or None,
        seconds=seconds,
        stack=stack or None,
        most_failures=child.most_timeouts if child.limit_seconds else 0,
    )


def _exit_code(status: int) -> int:
    """Decode a wait status that the supervisor wrote, and that a broken worker may have written over."""
    code = os.waitstatus_to_exitcode(status) if status <= _MOST_STATUS else _MOST_STATUS
    return code if -code in _SIGNALS or code >= 0 else _MOST_STATUS


def _of_handlers(stack: str) -> str:
    """Cut the lines below a handler, which are of this package and help nobody."""
    return "\n\n".join(_CALLER.split(thread, 1)[0].rstrip() for thread in stack.split("\n\n"))


def _how(code: int, limit_seconds: float, seconds: float | None) -> str:
    if (
        seconds is not None and seconds < limit_seconds
    ):  # it was in its handler when another one was over the limit
        return "by holding up the event loop beyond another message's time limit"
    if limit_seconds and code == -signal.SIGKILL:
        return f"by its time limit of {limit_seconds:g} s, by SIGKILL, since SIGABRT did not end it"
    if limit_seconds:
        return f"by its time limit of {limit_seconds:g} s"
    return f"by {signal.Signals(-code).name}" if code < 0 else f"by exiting with {code}"
