"""What each key of `top` does. A mount that hangs holds up no key: what touches one is done in a child."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from maildefer.cli.live import letters
from maildefer.cli.live.watch import Watch
from maildefer.cli.top.terminal import Terminal
from maildefer.cli.top.views import View, entry_view, footer, list_view, overview_lines, view_lines
from maildefer.host.bounded_async import call_bounded
from maildefer.host.bounded_call import CallFailed, TimedOut, hangs_still
from maildefer.maildir.operator.entries import Folder

_KEYS: Final = "q: quit  up, down: choose  enter: entries  p, r: pause, resume on all hosts"
_FOLDERS: Final[dict[str, Folder]] = {"d": "dead", "w": "waiting", "l": "deferred"}
_PAGE: Final = 10


class TopApp:
    """The screens, one above the other; the last is shown. Event loop only."""

    def __init__(
        self, watch: Watch, *, pause: Callable[[str], object], resume: Callable[[str], object]
    ) -> None:
        """`pause` and `resume` take a queue's path, and are called in a child."""
        self._watch = watch
        self._pause = pause
        self._resume = resume
        self._terminal = Terminal()
        self._views = [View(title="maildefer top", keys=_KEYS)]
        self._queue = ""  # of the screens above the first
        self._note = ""
        self._question: tuple[str, Callable[[str], object]] | None = None
        self._doing: asyncio.Task[None] | None = None
        self._late: TimedOut | None = None

    async def run(self) -> None:
        """Until `q`, a signal, or the terminal is gone."""
        loop, keys = asyncio.get_running_loop(), self._terminal.keys
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(signum, keys.put_nowait, "end")
        loop.add_signal_handler(signal.SIGWINCH, keys.put_nowait, "resize")
        with self._terminal.opened():
            tasks = [loop.create_task(self._watch.keep_looking()), loop.create_task(self._tell_news())]
            tasks[0].add_done_callback(lambda _: keys.put_nowait("end"))
            try:
                self._draw()
                while (key := await keys.get()) != "end" and self._press(key):
                    self._draw(anew=key == "resize")
            finally:
                for task in [*tasks, *([self._doing] if self._doing else [])]:
                    task.cancel()
        if tasks[0].done() and not tasks[0].cancelled():
            tasks[0].result()

    async def _tell_news(self) -> None:
        version = 0
        while True:
            version = await self._watch.next(version)
            self._terminal.keys.put_nowait("news")

    def _press(self, key: str) -> bool:
        """Do what a key is for; False where that is the end."""
        view, question = self._views[-1], self._question
        if key not in ("news", "resize"):
            self._note, self._question = "", None
        if question is not None and key == "y":
            self._do(partial(question[1], question[0]), self._told)
        elif key == "q":
            return False
        elif key == "back":
            self._views = self._views[:1] + self._views[1:-1]
        elif key in ("up", "down", "page up", "page down"):
            view.move((-1 if "up" in key else 1) * (_PAGE if "page" in key else 1))
        elif key in ("first", "last"):
            view.move(len(view.lines) * (-1 if key == "first" else 1))
        elif len(self._views) == 1:
            self._press_on_queue(key, view.item)
        elif key == "enter" and len(self._views) == 2 and view.item is not None:
            self._show(
                partial(letters.entry_page, self._queue, self._name, view.item),
                partial(entry_view, view.item),
            )
        elif key in _FOLDERS and len(self._views) == 2:
            self._views.pop()
            self._list(_FOLDERS[key])
        return True

    def _press_on_queue(self, key: str, path: str | None) -> None:
        if path is None:
            return
        self._queue = path
        if key in ("p", "r"):
            self._question = path, self._pause if key == "p" else self._resume
            self._note = f"{'pause' if key == 'p' else 'resume'} {self._name} on all hosts? y: yes, else no"
        elif key == "enter":
            row = self._watch.overview.queue(path)
            dead = row is not None and row.counts is not None and row.counts.dead
            self._list("dead" if dead else "waiting")
        elif key in _FOLDERS:
            self._list(_FOLDERS[key])

    @property
    def _name(self) -> str:
        row = self._watch.overview.queue(self._queue)
        return self._queue if row is None else row.name

    def _list(self, folder: Folder) -> None:
        look = partial(letters.folder_page, self._queue, self._name, folder, None)
        self._show(look, partial(list_view, self._name, folder))

    def _show(self, look: Callable[[], Any], view_of: Callable[[Any], View]) -> None:
        self._do(look, lambda found: self._views.append(view_of(found)))

    def _told(self, answer: object) -> None:
        self._note = f"{self._name}: {answer}"

    def _do(self, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Call a function in a child, one at a time, and go on with what it returns."""
        if (self._doing is not None and not self._doing.done()) or (self._late and hangs_still(self._late)):
            self._note = "still waiting for the last answer"
            return

        async def call() -> None:
            try:
                found = await call_bounded(function, letters.SECONDS + 4.0)
            except OSError as fault:
                found = CallFailed(fault)
            match found:
                case TimedOut():
                    self._late = found
                    self._note = f"no answer within {found.seconds:g} s: its filesystem hangs"
                case CallFailed():
                    self._note = str(found.error)
                case _:
                    self._note = ""
                    then(found)
            self._terminal.keys.put_nowait("news")

        self._note = "…"
        self._doing = asyncio.get_running_loop().create_task(call())

    def _draw(self, *, anew: bool = False) -> None:
        width, height = self._terminal.size
        view = self._views[-1]
        if len(self._views) == 1:
            lines = overview_lines(view, self._watch.overview, self._watch.history, width, height)
        else:
            lines = view_lines(view, width, height)
        lines += [""] * (height - 1 - len(lines))
        self._terminal.draw([*lines[: height - 1], footer(self._note or view.keys, width)], anew=anew)
