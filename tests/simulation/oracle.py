"""The invariants, looked at whenever the server carries something out, and when a process believes something.

Claims go by their whole paths. What the server does to entries is judged in `transitions`, to leases in `beats`, to
tokens in `conversations`, to periodic tasks in `periodic`; `limits` judges what runs at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn

from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.names import DRAFT, IN_KEY
from tests.simulation.beats import Beats
from tests.simulation.conversations import Conversations
from tests.simulation.effects import Effects
from tests.simulation.histories import History, Violation
from tests.simulation.journals import Records
from tests.simulation.keyed_requests import KeyedRequests
from tests.simulation.limits import LimitedHandlers
from tests.simulation.name_cache import entry_in, owner_in
from tests.simulation.outputs import SentOutputs
from tests.simulation.periodic import PeriodicCalls
from tests.simulation.scheduler import Process
from tests.simulation.server import Directory, Node
from tests.simulation.transitions import Transitions
from tests.simulation.uniqueness import Uniqueness
from tests.simulation.world import Request, World, short


@dataclass(slots=True)
class Oracle:
    world: World
    layouts: list[Layout]
    histories: dict[str, History] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    held: dict[int, set[str | int]] = field(default_factory=dict)  # by pid: what it may hold, as it published
    handling: dict[int, set[str]] = field(default_factory=dict)  # by pid: the claims whose handler runs
    calling: dict[int, Process] = field(default_factory=dict)  # by pid: what is in a `@batch` function
    passed: set[str] = field(default_factory=set)  # claims that another worker has taken over
    begun: set[str] = field(default_factory=set)  # claims whose handler began
    outcomes: dict[str, str] = field(default_factory=dict)  # by claim: what its handler ended in
    died_in: set[str] = field(default_factory=set)  # claims in whose handlers their workers died
    left: dict[str, Process] = field(default_factory=dict)  # by claim: who moved it from cur/
    # Keys whose names are not on the disk: their folders.
    unsynced: dict[str, str] = field(default_factory=dict)
    # By pid: the mount's time until which its push is to wait.
    wanted: dict[int, float] = field(default_factory=dict)
    planners: set[int] = field(default_factory=set)  # pids of programs that reschedule entries
    records: Records | None = None  # of the loss journal
    claims: int = 0
    reclaimed: int = 0
    # By path: which folder of which queue.
    places: dict[str, tuple[str, Layout]] = field(default_factory=dict)
    beats: Beats = field(init=False)
    conversations: Conversations = field(init=False)
    transitions: Transitions = field(init=False)
    periodic: PeriodicCalls = field(init=False)
    uniqueness: Uniqueness = field(init=False)
    keyed: KeyedRequests = field(init=False)
    limits: LimitedHandlers = field(init=False)
    effects: Effects = field(init=False)
    outputs: SentOutputs = field(init=False)

    def __post_init__(self) -> None:
        self.beats, self.conversations, self.transitions = Beats(self), Conversations(self), Transitions(self)
        self.periodic, self.uniqueness = PeriodicCalls(self), Uniqueness(self)
        self.keyed = KeyedRequests(self)
        self.limits = LimitedHandlers(self)
        self.effects = Effects(self)
        self.outputs = SentOutputs(self)
        for layout in self.layouts:
            folders = {
                layout.tmp: "tmp",
                layout.new: "new",
                layout.cur: "cur",
                layout.later_new: "later",
                layout.later_cur: "later/cur",
                layout.dead_new: "dead",
                layout.leases: "leases",
                layout.fenced: "fenced",
            }
            self.places.update({path: (name, layout) for path, name in folders.items()})

    def fail(self, invariant: str, what: str) -> NoReturn:
        raise Violation(f"{invariant}: {what}")

    def place(self, path: str) -> tuple[str, Layout | None, str]:
        """A path's folder in a few letters, its queue, and its name."""
        folder, _, name = path.rpartition("/")
        found = self.places.get(folder)
        return (*found, name) if found else ("", None, name)

    def is_live(self, claimed: str) -> bool:
        """Whether the lease is there under which something was claimed, or a token taken."""
        owner = owner_in(claimed)
        layout = next(layout for layout in self.layouts if claimed.startswith(f"{layout.path}/"))
        return owner is not None and self.beats.is_live(layout, owner.lease)

    # What the server does

    def sends(self, request: Request) -> None:
        """A process asks for it."""
        owner = owner_in(request.destination)
        if owner is not None and owner != owner_in(request.source):  # else a commit
            layout = next(layout for layout in self.layouts if request.source.startswith(f"{layout.path}/"))
            self.beats.must_be_heard(request, layout, owner.lease)
            self.beats.must_be_led(request)

    def synced(self, path: str) -> None:
        self.unsynced = {key: folder for key, folder in self.unsynced.items() if folder != path}

    def done(self, request: Request, node: Node, overwritten: Node | None) -> None:
        if "/once/" in request.destination:
            self.effects.moved(request, node)
        if isinstance(node, Directory):
            return
        self._judge(request, node, overwritten)
        if IN_KEY in request.source:
            self.uniqueness.moved(request)

    def _judge(self, request: Request, node: Node, overwritten: Node | None) -> None:
        source, queue, name = self.place(request.source)
        destination, other, new_name = self.place(request.destination)
        if queue is None:
            if "/outbox/" in request.source:
                self.outputs.moved(request, node, new_name if destination else "")
            if request.source.endswith(DRAFT) and destination:
                self.transitions.pushed(request, node, new_name)
            if request.source.startswith((f"{self.layouts[0].tokens}/", f"{self.layouts[0].limits}/")):
                self.conversations.moved(request)
            if request.source.startswith(f"{self.layouts[0].periodic}/"):
                self.periodic.moved(request)
            return
        if overwritten is not None and overwritten is not node and destination:
            self.fail("I2", f"{request.process.name} overwrote another file: {request}")
        match source, destination:
            case "tmp", ("new" | "later"):
                self.transitions.pushed(request, node, new_name)
            case "synced", ("new" | "later"):
                self.transitions.pushed_by_one_sync(request, node, name, new_name)
            case "synced", "":
                self.transitions.given_up(request, name)
            case (("new" | "later"), "cur"):
                self.transitions.claimed(request, name, new_name)
            case (("new" | "later"), ""):
                self.transitions.withdrawn(request, name)
            case (("new" | "later"), ("new" | "later")) if request.process.pid in self.planners:
                self.transitions.rescheduled(request, name, new_name)
            case "cur", ("new" | "later") if request.process.pid in self.planners:  # a mail reader's name
                self.transitions.rescheduled(request, name, new_name)
            case "new", "later":
                self.transitions.postponed(request, name, new_name)
            case "cur", "cur" if owner_in(name) == owner_in(new_name) is not None:
                self.transitions.committed(request, name, new_name)
            case "cur", "cur" if owner_in(name) is not None and owner_in(new_name) is not None:
                self.transitions.passed_on(request, name, new_name)
            case "cur", "cur":
                self.transitions.seized(request, name, new_name)
            case "cur", "new" if other is not queue:
                self.transitions.handed_off(request, name, new_name)
            case "cur", _:
                self.transitions.left_cur(request, queue, name, destination, new_name)
            case (("later" | "later/cur"), "new"):
                self.transitions.promoted(request, name, new_name)
            case "dead", "new":
                self.transitions.requeued(name, new_name)
            case "leases", "leases":
                self.beats.beaten(request, queue, name, new_name)
            case "leases", "fenced":
                self.beats.fenced(request, queue, name)
            case "tmp", "leases":
                self.beats.joined(request, other or queue, new_name)

    # What processes believe

    def ended(self, process: Process) -> None:
        """It is on no handler any more."""
        self.handling.pop(process.pid, None)

    def is_off(self, process: Process, claimed: str) -> None:
        """The server settles that claim for it; late, and by now it may be on the next one."""
        if claimed in self.handling.get(process.pid, ()):
            self.handling[process.pid].discard(claimed)
            if not self.handling[process.pid]:
                del self.handling[process.pid]

    def dies(self, process: Process) -> None:
        self.died_in |= self.handling.pop(process.pid, set()) - self.outcomes.keys()
        self.calling.pop(process.pid, None)
        self.conversations.held.pop(process.pid, None)
        self.limits.running.pop(process.pid, None)

    def timed_out(self, process: Process) -> None:
        if process.pid not in self.handling:
            self.fail("deadline", f"{process.name} is killed for a handler that does not run")

    def acknowledged(self, key: str, data: bytes) -> None:
        history = self.histories.get(key)
        if history is None or history.end == "withdrawn":
            self.fail("I1", f"acknowledged, but never in new/: {key}")
        if key in self.unsynced:
            self.fail("I1", f"acknowledged before its name is on the disk: {key}")
        if history.data != data:
            self.fail("I9", f"pushed other bytes than were given: {key}")
        history.acknowledged = True
        self.recorded(key)

    def recorded(self, key: str) -> None:
        """A push has returned a key: of its own entry, or of one that was pushed before, perhaps by who died of it."""
        if self.records is not None and not self.records.has_push(key):
            self.fail("audit", f"acknowledged, and not on record: {key}")

    def handed_out(self, process: Process, key: str, data: bytes) -> None:
        """`pop` has returned it, which happens at most once, and to nobody who handles it."""
        history = self.histories[entry_in(key).key]
        if data != history.data:
            self.fail("I9", f"popped other bytes than were pushed: {key}")
        if history.handed_out or history.end != "popped":
            self.fail("pop", f"{process.name} got what another has: {key} ({history.end or 'waiting'})")
        history.handed_out = True

    def answered_cancel(self, process: Process, key: str, was_cancelled: bool) -> None:
        """A program was told whether an entry was cancelled; `was_cancelled` was answered within the TTL."""
        history = self.histories[key]
        if was_cancelled and (history.end != "popped" or history.ended_by is not process):
            self.fail(
                "cancel", f"{process.name} was told that it cancelled {key} ({history.end or 'waiting'})"
            )
        if not was_cancelled and history.end == "popped" and history.ended_by is process:
            self.fail("cancel", f"{process.name} was told that it did not cancel {key}")
        history.cancelled = history.cancelled or was_cancelled

    def begins(self, process: Process, claimed: str, data: bytes) -> None:
        """A handler starts."""
        entry = entry_in(claimed.rpartition("/")[2])
        history = self.histories[entry.key]
        if data != history.data:
            self.fail("I9", f"the handler got other bytes than were pushed: {short(claimed)}")
        if history.handed_out or history.cancelled:
            self.fail("pop", f"handled after it was popped or cancelled: {short(claimed)}")
        if entry.outputs:
            self.outputs.end(claimed.rpartition("/")[2])
        is_first = claimed not in self.begun
        self.begun.add(claimed)
        if not (history.begins(entry.attempts, entry.returns) and is_first):
            self.fail(
                "I5",
                f"{history.starts} handlers began, {history.charged} attempts are charged: {short(claimed)}",
            )
        for pid, other in ((pid, other) for pid, others in self.handling.items() for other in others):
            if (
                entry_in(other.rpartition("/")[2]).key == entry.key
                and self.processes[pid].alive
                and pid != process.pid
                and self.is_live(claimed)
                and self.is_live(other)
            ):
                self.fail("I3", f"two hold it under live leases: {short(claimed)} and {short(other)}")
        self.handling.setdefault(process.pid, set()).add(claimed)

    def ends(self, process: Process, claimed: str, outcome: str) -> None:
        """A handler has returned or raised, or was not begun."""
        self.outcomes[claimed] = outcome
        if outcome != "Postponed":
            self.histories[entry_in(claimed.rpartition("/")[2]).key].finished += 1

    def calls(self, process: Process, claimed: str, *, exclusive: bool) -> None:
        """A `@batch` function is called: the only call of it on its host, or on all."""
        for other in self.calling.values():
            if other.family is process.family:
                self.fail(
                    "overlap", f"{process.name} calls while {other.name} is in its call: {short(claimed)}"
                )
        self.calling[process.pid] = process
        if exclusive:
            self.conversations.calls(process, claimed)

    def returns(self, process: Process) -> None:
        self.calling.pop(process.pid, None)
        self.falls_silent(process)

    def converses(self, process: Process, conversation: str, claimed: str) -> None:
        self.conversations.begins(process, conversation, claimed)

    def falls_silent(self, process: Process) -> None:
        self.conversations.held.pop(process.pid, None)

    def reports_settled(self, process: Process, claimed: str) -> None:
        self.is_off(process, claimed)
        if claimed in self.passed:  # it is another worker's, and this one has only let go of it
            return
        if self.left.get(claimed) is not process:
            by = self.left.get(claimed)
            self.fail(
                "I7",
                f"{process.name} believes it settled {short(claimed)}; {by.name if by else 'nobody'} did",
            )

    def reports_lost(self, process: Process, claimed: str) -> None:
        self.is_off(process, claimed)
        if claimed not in self.left:
            self.fail("I7", f"{process.name} believes that it lost {short(claimed)}, and nobody took it")
