"""How far a long command is, on standard error if that is a terminal. Rich is imported once there is something to show.

No thread draws: commands fork.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_QUICK_SECONDS: Final = 0.5  # what is done by then shows nothing
_DRAWN_SECONDS: Final = 0.1  # between two drawings


class _ProgressLine:
    """One line that is drawn anew, and taken away at the end; what is printed meanwhile stands above it."""

    def __init__(self, what: str, *, after_seconds: float) -> None:
        self._what = what
        self._next = time.monotonic() + after_seconds
        self._progress: Progress | None = None

    def show(self, text: str) -> None:
        """Show that text, unless something was shown just now."""
        now = time.monotonic()
        if now < self._next or not os.isatty(2):
            return
        self._next = now + _DRAWN_SECONDS
        if self._progress is None:
            self._progress = _begun(self._what)
        self._progress.update(self._progress.task_ids[0], description=text, refresh=True)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _begun(what: str) -> Progress:
    from rich.console import Console  # 100 ms
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    texts = (TextColumn(what, markup=False), TextColumn("{task.description}", markup=False))
    progress = Progress(
        SpinnerColumn(),
        *texts,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=os.isatty(1),  # else its data goes elsewhere
    )
    progress.start()
    progress.console.show_cursor(True)  # a signal may end the command
    progress.add_task("", total=None)
    return progress


def counted(items: Iterable[T], what: str) -> Iterator[T]:
    """Yield the items, and show how many there were."""
    line = _ProgressLine(what, after_seconds=_QUICK_SECONDS)
    try:
        for number, item in enumerate(items):
            line.show(str(number))
            yield item
    finally:
        line.end()


@contextmanager
def steps(what: str) -> Iterator[Callable[[str], None]]:
    """A function that shows which step of the block has begun."""
    line = _ProgressLine(what, after_seconds=0.0)
    try:
        yield line.show
    finally:
        line.end()
