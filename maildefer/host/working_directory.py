"""The working directory of a process that runs other people's code: their moves are noticed, and undone.

A function is put in the place of `os.chdir` and of `os.fchdir`. Asking getcwd(2) after each message would cost a system
call, and an audit hook its call for each of a message's dozen other events; this costs nothing before somebody moves.
What C code does by itself is not seen.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

_chdir, _fchdir = os.chdir, os.fchdir


def enter(path: str) -> WorkingDirectory:
    """Stand there, and notice all moves for as long as the process lives. Raises OSError."""
    _chdir(path)
    return WorkingDirectory().__enter__()


class WorkingDirectory:
    """The directory in which the process stands when this is made. A context manager: noticed is what is done in it."""

    __slots__ = ("_path", "movers")

    def __init__(self) -> None:
        self._path = os.getcwd()
        self.movers: set[int] = set()
        """The threads that have changed it since it was last put back."""

    def __enter__(self) -> WorkingDirectory:
        vars(os).update(chdir=self._noting(_chdir), fchdir=self._noting(_fchdir))
        return self

    def __exit__(self, *_: object) -> None:
        vars(os).update(chdir=_chdir, fchdir=_fchdir)

    def put_back(self) -> bool:
        """Stand where it began; False if that is gone."""
        self.movers.clear()
        try:
            _chdir(self._path)
        except OSError:
            return False
        return True

    def _noting(self, move: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(move)
        def noted(*arguments: Any, **named: Any) -> None:
            move(*arguments, **named)
            self.movers.add(threading.get_ident())

        return noted
