"""The working directory of a process that runs user code: a change is noticed, and undone.

`os.chdir` and `os.fchdir` are replaced by functions that notice it, which costs nothing before a change, as getcwd(2)
or an audit hook would. A change by C code is not seen.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any

_chdir, _fchdir = os.chdir, os.fchdir


def enter_directory(path: str) -> WorkingDirectory:
    """Change to a directory, and notice all later changes for as long as the process lives. Raises OSError."""
    _chdir(path)
    return WorkingDirectory().__enter__()


class WorkingDirectory:
    """The working directory when this is made. As a context manager, it notices changes within its block."""

    __slots__ = ("_path", "movers")

    def __init__(self) -> None:
        self._path = os.getcwd()
        self.movers: set[int] = set()
        """The threads that have changed the directory since it was last put back."""

    def __enter__(self) -> WorkingDirectory:
        vars(os).update(chdir=self._noting(_chdir), fchdir=self._noting(_fchdir))
        return self

    def __exit__(self, *_: object) -> None:
        vars(os).update(chdir=_chdir, fchdir=_fchdir)

    def put_back(self) -> bool:
        """Change back to the directory; False if that is gone."""
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
