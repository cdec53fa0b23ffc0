"""What is pushed in a run of chaos besides mail: messages of each kind, and requests by HTTP."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from itertools import cycle

from benchmarks.chaos_means import Answer, UniquePush
from benchmarks.mail_load import Door
from tests.lifecycle.project import Project

BATCH = 25  # messages pushed with one directory sync
# In a batch of those that send: each is three deliveries more, whose code a fresh worker has to load.
SENDING = 10
LATER = ("chaos", 3.0, "normal")  # pushed for so many seconds later
KINDS = (  # of batches, in turn: recipient, seconds, priority
    ("chaos", None, "normal"),
    LATER,
    ("limited-a", None, "normal"),
    ("chaos", None, "high"),
    ("batch", None, "normal"),
    ("async", None, "normal"),
    LATER,
    ("unique", None, "normal"),
    ("chaos", None, "low"),
    ("exclusive", None, "normal"),
    ("once", None, "normal"),
    ("sending", None, "normal"),
    LATER,
    ("rated-a", None, "normal"),
    ("chaos", None, "normal"),
    ("limited-b", None, "low"),
    LATER,
    ("rated-b", None, "high"),
    ("chaos", None, "normal"),
)
_UNIQUE_KEYS = 8
_TIMEOUT_SECONDS = 30.0
_PAUSE_SECONDS = 0.05
_AGAIN = 0.4  # of the requests are made again, as by a client whose answer was lost
_CREATED = 201


class PushLoad:
    """A thread that pushes `count` messages in `seconds`, a batch of each kind in turn."""

    def __init__(self, project: Project, count: int, seconds: float) -> None:
        self.keys: list[str] = []
        self.unique: list[UniquePush] = []
        self.sending: list[str] = []  # keys of messages that send
        self._project = project
        self._count = count
        self._pause = seconds * BATCH / count
        self._halt = threading.Event()
        self.thread = threading.Thread(target=self._run, name="pusher")

    def stop(self) -> None:
        self._halt.set()

    def _run(self) -> None:
        """All along, so that pushes, too, meet with deaths; a little faster than they are handled."""
        due, kinds = time.monotonic(), cycle(KINDS)
        while len(self.keys) < self._count and not self._halt.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            count = min(BATCH, self._count - len(self.keys))
            what, after, priority = next(kinds)
            if what == "unique":
                self._push_uniquely(count)
            else:
                count = min(count, SENDING) if what == "sending" else count
                keys = self._project.push(what, count, after=after, priority=priority)
                self.keys += keys
                self.sending += keys if what == "sending" else []

    def _push_uniquely(self, count: int) -> None:
        for number in range(count):
            began, unique = time.monotonic(), f"unique-{number % _UNIQUE_KEYS}"
            told = self._project.push_unique(unique, unique)
            returned = time.monotonic()
            self.unique.append(
                UniquePush(unique=unique, key=told.key, is_new=told.is_new, began=began, returned=returned)
            )
            if told.is_new:
                self.keys.append(told.key)


class RequestLoad:
    """A thread that makes `count` requests for two recipients each, one every `every_seconds`, at any of the doors."""

    def __init__(
        self, doors: Sequence[Door], token: str, count: int, every_seconds: float, chance: random.Random
    ) -> None:
        self.answers: list[Answer] = []
        self.unanswered = 0  # that were sent, and got no answer: what made its drafts may have been killed
        self._doors = doors
        self._token = token
        self._count = count
        self._every = every_seconds
        self._random = chance
        self._halt = threading.Event()
        self.thread = threading.Thread(target=self._run, name="requests")

    def stop(self) -> None:
        """Make no more, whatever is left."""
        self._halt.set()

    def keys(self) -> list[str]:
        """The keys of all entries that were answered, each once."""
        return list(dict.fromkeys(key for answer in self.answers for key in answer.keys))

    def _run(self) -> None:
        due = time.monotonic()
        for number in range(self._count):
            for _ in range(1 + (self._random.random() < _AGAIN)):
                while not self._halt.is_set() and not self._is_answered(f"request-{number}"):
                    self._halt.wait(_PAUSE_SECONDS)
            due += self._every
            if self._halt.wait(max(0.0, due - time.monotonic())):
                break

    def _is_answered(self, request: str) -> bool:
        port = self._random.choice(self._doors).port()
        if port is None:
            return False
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": request}
        path = f"/queues/queue?recipient={request}-a@test&recipient={request}-b@test"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("POST", path, b"Subject: a request\n\nHello.\n", headers)
            response = connection.getresponse()
            told = json.loads(response.read())
        except ConnectionRefusedError:
            return False
        except (OSError, http.client.HTTPException, ValueError):
            self.unanswered += 1
            return False
        finally:
            connection.close()
        if response.status != _CREATED:
            self.unanswered += 1
            return False
        self.answers.append(Answer(request=request, keys=tuple(told["keys"])))
        return True
