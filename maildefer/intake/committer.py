"""Pushes on behalf of the event loop, in threads, several with one directory sync.

As few threads as the storage needs: on a fast disk one, since threads that do system calls all the time take the
interpreter from the event loop at every turn (measured: with a thread for each push, a `send` cost the loop 100 µs
instead of 24); on a slow mount as many as it takes to have the waiting overlap. What comes while a thread is at work is
its next batch.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Executor
from math import ceil
from typing import Final

from maildefer.errors import MaildeferError
from maildefer.maildir import durable
from maildefer.maildir.push import Compose, Pusher
from maildefer.maildir.system import SYSTEM

Result = str | MaildeferError
_ONE_THREAD_SECONDS: Final = 0.001  # storage that takes no longer for an entry is served by one thread
_MOST: Final = 64  # entries of a batch: who came first should not wait for all


class Committer:
    """`push` is for the event loop only; no more than `most_threads` of the executor's are in use."""

    def __init__(
        self, pusher: Pusher, threads: Executor, most_threads: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._pusher = pusher
        self._threads = threads
        self._most_threads = most_threads
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Compose, asyncio.Future[Result]]] = deque()
        self._running = 0
        self._wanted = 1
        self._entry_seconds = 0.0

    async def push(self, compose: Compose) -> Result:
        """The key, once the entry is durable (I1), or the error."""
        future: asyncio.Future[Result] = self._loop.create_future()
        with self._lock:
            self._waiting.append((compose, future))
            start = self._running < self._wanted
            self._running += start
        if start:
            self._threads.submit(self._work)
        return await future

    def withdraw(self, keys: list[str]) -> None:
        """Take back entries that nobody was told of, as far as no worker has them; in a thread."""
        for key in keys:
            durable.discard(f"{self._pusher.layout.new}/{key}", SYSTEM)

    def _work(self) -> None:
        while batch := self._next_batch():
            began = time.monotonic()
            results = self._push(batch)
            self._learn((time.monotonic() - began) / len(batch))
            self._loop.call_soon_threadsafe(_settle, batch, results)

    def _next_batch(self) -> list[tuple[Compose, asyncio.Future[Result]]]:
        """A fair share of what waits; when there is nothing, or the threads are too many, this one ends."""
        with self._lock:
            size = min(ceil(len(self._waiting) / self._wanted), _MOST)
            if not size or self._running > self._wanted:
                self._running -= 1
                return []
            return [self._waiting.popleft() for _ in range(size)]

    def _push(self, batch: list[tuple[Compose, asyncio.Future[Result]]]) -> list[Result] | Exception:
        try:
            return self._pusher.push_all([compose for compose, _ in batch])
        except Exception as fault:  # noqa: BLE001  # the thread must go on, and the clients must hear of it
            return fault

    def _learn(self, seconds: float) -> None:
        """How long an entry takes, averaged over some twenty batches, tells how many threads are wanted."""
        with self._lock:
            self._entry_seconds += (seconds - self._entry_seconds) * 0.05
            self._wanted = min(max(1, ceil(self._entry_seconds / _ONE_THREAD_SECONDS)), self._most_threads)


def _settle(batch: list[tuple[Compose, asyncio.Future[Result]]], results: list[Result] | Exception) -> None:
    for at, (_, future) in enumerate(batch):
        if future.done():  # its connection went away; the entry is there all the same
            continue
        if isinstance(results, Exception):
            future.set_exception(results)
        else:
            future.set_result(results[at])
