"""What all hosts of one schedule share: server, faults, time, and the record of what happened."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from tests.simulation.faults import FaultRates
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.server import Node, Server

START: Final = 1_700_000_000.0
BEAT_SECONDS: Final = 1.0
LONGEST_RETRY_SECONDS: Final = 1.0
TTL_SECONDS: Final = 3 * BEAT_SECONDS + 2 * LONGEST_RETRY_SECONDS
LATEST_COPY_SECONDS: Final = 8.0  # so that one lands after its owner was fenced and its entry reclaimed
MAX_CRASHES: Final = 3
_TRACE_LINES: Final = 4000


@dataclass(slots=True)
class Request:
    """One change of names on its way to the server; `sent` is simulated time."""

    what: str
    source: str
    destination: str
    process: Process
    sent: float
    late: bool = False

    def __str__(self) -> str:
        target = f" → {short(self.destination)}" if self.destination else ""
        return f"{self.what} {short(self.source)}{target}{' (late)' if self.late else ''}"


@dataclass(frozen=True, slots=True)
class Refused:
    """For the trace: put into words only when somebody reads it."""

    request: Request
    fault: OSError

    def __str__(self) -> str:
        return f"{self.request}: {type(self.fault).__name__}"


class Watcher(Protocol):
    def sends(self, request: Request) -> None: ...

    def done(self, request: Request, node: Node, overwritten: Node | None) -> None: ...

    def synced(self, path: str) -> None: ...


@dataclass(slots=True)
class World:
    scheduler: Scheduler
    server: Server
    fault_rates: FaultRates
    watcher: Watcher | None = None
    down_until: float = 0.0
    grace_until: float = 0.0
    boots: int = 0
    quiet: list[tuple[float, float]] = field(default_factory=list)  # when the server did not rename
    under_way: int = 0  # late requests that have not landed yet
    trace: deque[tuple[float, str, object]] = field(default_factory=lambda: deque(maxlen=_TRACE_LINES))

    @property
    def now(self) -> float:
        return self.scheduler.now

    @property
    def mount_time(self) -> float:
        return START + self.scheduler.now

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.scheduler.random.random() < probability

    def a_while(self) -> float:
        """Until something late arrives."""
        return self.scheduler.random.uniform(0, LATEST_COPY_SECONDS)

    def note(self, who: str, what: object) -> None:
        self.trace.append((self.scheduler.now, who, what))

    def carry_out(self, request: Request) -> None:
        """The server does it, and the oracle looks on. Raises OSError."""
        server, now = self.server, self.mount_time
        who = request.process.name
        overwritten: Node | None = None
        try:
            if request.what == "rename":
                overwritten = server.look(request.destination)
                node = server.rename(request.source, request.destination, now)
            else:
                node = server.unlink(request.source, now)
            self.note(who, request)
        except OSError as fault:
            self.note(who, Refused(request, fault))
            raise
        if self.watcher is not None:
            self.watcher.done(request, node, overwritten)

    def carry_out_late(self, request: Request, seconds: float) -> None:
        """A copy, or what its sender has given up, or died with."""
        late = Request(request.what, request.source, request.destination, request.process, request.sent, True)
        self.under_way += 1

        def land() -> None:
            if self.grace_until > self.now:  # it is sent again, like all others
                self.scheduler.at(self.grace_until + seconds / 10, land)
                return
            self.under_way -= 1
            try:
                self.carry_out(late)
            except OSError:  # it finds nothing any more: the ordinary case
                pass

        self.scheduler.at(self.now + seconds, land)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        self.scheduler.at(self.now + seconds, action)


def short(path: str) -> str:
    """The last two parts of a path, for people."""
    return "/".join(path.rsplit("/", 2)[-2:])
