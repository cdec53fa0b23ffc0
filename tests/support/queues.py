"""A world for the queue: real files in a temporary directory, with faults, a clock and a memory of every call.

    world.refuse("rename", errno.ENOSPC)            the request is not carried out
    world.lose_reply("rename", errno.ENOENT)        it is carried out, and the reply says otherwise
    world.hold("rename", errno.EIO)                 it fails now, and is carried out at `world.land()`
    world.before("rename", action), after(…)        something happens just before, or between act and reply
    world.take("rename", seconds)                   it takes so long
    world.hide(name), world.show(directory, name)   listings miss a name, or show one that is not there

Each counts for the first matching call, or for `times` of them; `where` is a text that one of the arguments holds.
"""

from __future__ import annotations

import codecs
import errno
import os
from binascii import crc32
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from maildefer.maildir import names
from maildefer.maildir.layout import Layout
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.leases import LeaseHolder
from tests.support.scandir_model import Listing

LABEL: Final = "host-0a1b2c"
START: Final = 1_700_000_000.0
DATA: Final = b"Subject: hello\n\nhello\n"
BY_DESCRIPTOR: Final = frozenset(("read", "write", "ftruncate", "fsync", "close", "fstat"))
TRACKED: Final = (
    *BY_DESCRIPTOR,
    "rename",
    "unlink",
    "open",
    "lstat",
    "mkdir",
    "rmdir",
    "utime",
    "listdir",
    "scandir",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: descriptors are given as the paths that they were opened by."""

    what: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} {' -> '.join(os.path.basename(text) for text in self.arguments)}"


@dataclass(slots=True)
class Rule:
    what: str
    where: str
    times: int
    fault: int | None = None
    done: bool = True
    held: bool = False
    seconds: float = 0.0
    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def fits(self, call: Call) -> bool:
        return (
            self.times > 0 and self.what == call.what and any(self.where in text for text in call.arguments)
        )


@dataclass(slots=True)
class World:
    """Use `world.system` wherever a System is asked for. Of one thread, unless a test says otherwise."""

    seconds: float = START  # wall clock
    uptime: float = 1000.0  # boot clock
    calls: list[Call] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    ghosts: dict[str, list[str]] = field(default_factory=dict)
    held: list[tuple[Callable[..., Any], tuple[Any, ...]]] = field(default_factory=list)
    paths: dict[int, str] = field(default_factory=dict)
    steps: set[int] = field(default_factory=set)
    descriptors: set[int] = field(default_factory=set)
    tokens: int = 0
    pid: int = 4711
    system: System = field(default=SYSTEM, repr=False)

    def __post_init__(self) -> None:
        calls: dict[str, Any] = {what: self._wrapped(what) for what in TRACKED}
        self.system = replace(
            SYSTEM,
            **calls,
            time=lambda: self.seconds,
            boottime=lambda: self.uptime,
            sleep=self.pass_time,
            token=self._token,
            pid=lambda: self.pid,
        )

    # What may go wrong

    def refuse(self, what: str, fault: int, *, where: str = "", times: int = 1) -> None:
        self.rules.append(Rule(what, where, times, fault=fault, done=False))

    def lose_reply(self, what: str, fault: int, *, where: str = "", times: int = 1) -> None:
        self.rules.append(Rule(what, where, times, fault=fault))

    def hold(self, what: str, fault: int, *, where: str = "") -> None:
        self.rules.append(Rule(what, where, 1, fault=fault, done=False, held=True))

    def take(self, what: str, seconds: float, *, where: str = "", times: int = 1) -> None:
        self.rules.append(Rule(what, where, times, seconds=seconds))

    def before(self, what: str, action: Callable[[], object], *, where: str = "", times: int = 1) -> None:
        self.rules.append(Rule(what, where, times, before=action))

    def after(self, what: str, action: Callable[[], object], *, where: str = "", times: int = 1) -> None:
        self.rules.append(Rule(what, where, times, after=action))

    def hide(self, name: str) -> None:
        self.hidden.add(name)

    def show(self, directory: str, name: str) -> None:
        self.ghosts.setdefault(directory, []).append(name)

    def land(self) -> list[int]:
        """Carry out what was held; returns the errnos of those that found nothing any more."""
        faults = []
        for function, arguments in self.held:
            try:
                function(*arguments)
            except OSError as fault:
                faults.append(fault.errno or 0)
        self.held.clear()
        return faults

    # Time, and what was asked

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.uptime += seconds

    def close_all(self) -> None:
        """Close what is open, as the kernel does for a process that was killed."""
        while self.descriptors:
            os.close(self.descriptors.pop())

    def forget(self) -> None:
        self.calls.clear()

    def asked(self, *what: str) -> list[Call]:
        return [call for call in self.calls if call.what in what]

    # The machinery

    def _token(self, size_bytes: int) -> str:
        self.tokens += 1
        return f"{self.tokens:0{2 * size_bytes}x}"

    def _wrapped(self, what: str) -> Callable[..., Any]:
        real = getattr(SYSTEM, what)

        def carry_out(*arguments: Any, **named: Any) -> Any:
            # A step on a path, which calls by path take as well.
            if what == "open" and arguments[1] & os.O_PATH:
                step = self._carry_out(what, real, arguments, named)
                self.steps.add(step)
                self.descriptors.discard(step)  # it is closed on any way
                return step
            if what == "close" and arguments[0] in self.steps:
                self.steps.remove(arguments[0])
                return real(*arguments)
            return self._answer(what, self._carry_out, (what, real, arguments, named))

        return carry_out

    def _answer(self, what: str, act: Callable[..., Any], request: tuple[Any, ...]) -> Any:
        arguments = request[2]
        first = self._path(what, arguments[0], request[3].get("dir_fd"))
        shown: tuple[str, ...] = (first,)
        if what == "rename":
            named = request[3]
            shown = (
                self._path(what, arguments[0], named.get("src_dir_fd")),
                self._path(what, arguments[1], named.get("dst_dir_fd")),
            )
        call = Call(what, tuple(map(str, shown)))
        self.calls.append(call)
        rules = [rule for rule in self.rules if rule.fits(call)]
        for rule in rules:
            rule.times -= 1
            self.pass_time(rule.seconds)
            if rule.before is not None:
                rule.before()
        fault = next((rule for rule in rules if rule.fault is not None), None)
        if fault is not None and fault.held:
            # Its folders are closed by then.
            late = (what, request[1], shown, {}) if what == "rename" else request
            self.held.append((act, late))
        answer = act(*request) if fault is None or fault.done else None
        for rule in rules:
            if rule.after is not None:
                rule.after()
        if fault is not None and fault.fault is not None:
            raise OSError(fault.fault, os.strerror(fault.fault), call.arguments[0])
        return answer

    def _path(self, what: str, first: Any, folder: int | None) -> str:
        """What the first argument is about: a path, a name in a folder that is open, or what a descriptor is of."""
        if what in BY_DESCRIPTOR or isinstance(first, int):
            return self.paths.get(first, "?")
        return str(first) if folder is None else f"{self.paths.get(folder, '?')}/{first}"

    def _carry_out(
        self, what: str, real: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        match what:
            case "open":
                descriptor = real(*arguments, **named)
                self.paths[descriptor] = self._path(what, arguments[0], named.get("dir_fd"))
                self.descriptors.add(descriptor)
                return descriptor
            case "close":
                self.descriptors.discard(arguments[0])
                return real(*arguments)
            case "listdir":
                return self._shown(self._path(what, arguments[0], None), real(arguments[0]))
            case "scandir":
                with real(arguments[0]) as found:
                    names = [entry.name for entry in found]
                return Listing(self._shown(self._path(what, arguments[0], None), names))
            case _:
                return real(*arguments, **named)

    def _shown(self, directory: str, names: list[str]) -> list[str]:
        return [*(name for name in names if name not in self.hidden), *self.ghosts.get(directory, [])]


class FakeSlots:
    """A board of one process: what it may hold, and everything that it ever published."""

    def __init__(self) -> None:
        self.seq = 0
        self.held: dict[int, tuple[int, str]] = {}
        self.published: list[str] = []

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def take_place(self, seq: int, name: str) -> int:
        place = seq - 1  # the first place is 0
        self.held[place] = (seq, name)
        self.published.append(name)
        return place

    def free_place(self, place: int) -> None:
        del self.held[place]


def put(directory: str, name: str, data: bytes = DATA) -> str:
    """A file, as another program would leave it there."""
    with open(f"{directory}/{name}", "xb") as file:
        file.write(data)
    return name


def everywhere(layout: Layout) -> dict[str, bytes]:
    """Every entry of the queue, by its path within it; drafts in `tmp/` as well."""
    found = {}
    for folder in ("tmp", "new", "cur", ".later/new", ".later/cur", ".dead/new", ".dead/cur", ".done/new"):
        directory = f"{layout.path}/{folder}"
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            if os.path.isfile(f"{directory}/{name}"):
                with open(f"{directory}/{name}", "rb") as file:
                    found[f"{folder}/{name}"] = file.read()
    return found


def leave_synced(
    layout: Layout,
    *,
    data: bytes = DATA,
    written: bytes | None = None,
    boot: str = "00000000",
    due: int | None = None,
) -> str:
    """Leave an entry as a push with one sync does before its rename, or what was `written` of it; returns its key."""
    os.makedirs(layout.synced, exist_ok=True)
    key = names.sized(names.fresh_stem(LABEL, SYSTEM, due), len(data))
    put(layout.synced, f"{key}.{crc32(data):08x}.{boot}", data if written is None else written)
    return key


@contextmanager
def somebody_else() -> Iterator[None]:
    """As a user without privileges; for root only."""
    codecs.lookup("ascii")  # loaded at its first use, when Python's own library may be out of reach
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def holder(pid: int = 1, keeper_pid: int = 2, host: str = LABEL) -> LeaseHolder:
    return LeaseHolder(
        host=host,
        boot_id="b",
        pid_namespace="p",
        pid=pid,
        start_time=1,
        keeper_pid=keeper_pid,
        keeper_start_time=1,
    )


FAULTS: Final = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
)
