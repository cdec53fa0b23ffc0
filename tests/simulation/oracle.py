"""The invariants, looked at whenever the server carries something out, and when a process believes something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NoReturn

from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, owner_of, split_beat
from tests.simulation.scheduler import Process
from tests.simulation.server import Directory, File, Node
from tests.simulation.stories import Believed, Story, Violation
from tests.simulation.world import (
    BEAT_SECONDS,
    LONGEST_RETRY_SECONDS,
    MAX_CRASHES,
    TTL_SECONDS,
    Request,
    World,
    short,
)

_SLACK: Final = 0.05
# A silence of two intervals is a stall (see `Observer`); it is seen one interval and one slow request later at most.
_NOTICED_SECONDS: Final = 3 * BEAT_SECONDS + LONGEST_RETRY_SECONDS


@dataclass(slots=True)
class Oracle:
    world: World
    layout: Layout
    stories: dict[str, Story] = field(default_factory=dict)
    leases: dict[str, Believed] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)
    held: dict[int, set[str]] = field(default_factory=dict)  # by pid: what it may hold, as it published
    handling: dict[int, str] = field(default_factory=dict)  # by pid: the claim whose handler runs
    begun: set[str] = field(default_factory=set)  # claims whose handler began
    outcomes: dict[str, str] = field(default_factory=dict)  # by claim: what its handler ended in
    died_in: set[str] = field(default_factory=set)  # claims in whose handlers their workers died
    left: dict[str, Process] = field(default_factory=dict)  # by claim: who moved it from cur/
    unsynced: set[str] = field(default_factory=set)  # keys whose names are in new/ and not on the disk
    claims: int = 0
    taken_back: int = 0
    folders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = self.layout
        self.folders = {
            layout.tmp: "tmp",
            layout.new: "new",
            layout.cur: "cur",
            layout.later_new: "later",
            layout.later_cur: "later/cur",
            layout.dead_new: "dead",
            layout.leases: "leases",
            layout.fenced: "fenced",
        }

    def fail(self, invariant: str, what: str) -> NoReturn:
        raise Violation(f"{invariant}: {what}")

    def is_live(self, lease: str) -> bool:
        found = self.world.server.directories.get(self.layout.leases)
        return found is not None and any(name.rpartition(".")[0] == lease for name in found.names)

    # What the server does

    def sends(self, request: Request) -> None:
        if not request.destination.startswith(f"{self.layout.cur}/") or not request.source.startswith(
            self.layout.new
        ):
            return
        owner = owner_of(request.destination)
        believed = self.leases.get(owner.lease) if owner else None
        if believed and request.sent - believed.sent > TTL_SECONDS / 2 + _SLACK:
            self.fail(
                "I8", f"claim sent {request.sent - believed.sent:.2f} s after the last good beat: {request}"
            )

    def synced(self, path: str) -> None:
        if path == self.layout.new:
            self.unsynced.clear()

    def done(self, request: Request, node: Node, overwritten: Node | None) -> None:
        folder, _, name = request.source.rpartition("/")
        target, _, new_name = request.destination.rpartition("/")
        source, destination = self.folders.get(folder, ""), self.folders.get(target, "")
        if not source or isinstance(node, Directory):
            return
        if overwritten is not None and overwritten is not node and destination:
            self.fail("I2", f"{request.process.name} overwrote another file: {request}")
        match source, destination:
            case "tmp", "new":
                assert isinstance(node, File)
                self.stories[EntryName.parse(new_name).key] = Story(node.data, request.process)
                self.unsynced.add(EntryName.parse(new_name).key)
            case "new", "cur":
                self._claimed(request, name, new_name)
            case "new", "":
                self._withdrawn(request, name)
            case "cur", _:
                self._left_cur(request, name, destination, new_name)
            case (("later" | "later/cur"), "new"):
                self._moved(request, name, new_name, attempts=0, crashes=0)
            case "dead", "new":
                self._requeued(name, new_name)
            case "leases", "leases":
                self._beaten(request, name, new_name)
            case "leases", "fenced":
                self._fenced(request, name)
            case "tmp", "leases":
                lease = split_beat(new_name)
                assert lease is not None
                self.leases[lease[0]] = Believed(request.process.family, self.world.now, request.sent)

    def _claimed(self, request: Request, name: str, claimed: str) -> None:
        owner = owner_of(claimed)
        if owner is None:  # a mail reader
            return
        self.claims += 1
        if owner.pid != request.process.pid:
            self.fail("I3", f"{request.process.name} claims in another's name: {short(request.destination)}")
        self._moved(request, name, claimed, attempts=1, crashes=0, returns=0)

    def _moved(
        self, request: Request, name: str, new_name: str, *, attempts: int, crashes: int, returns: int = 1
    ) -> None:
        """Each transition has its own arithmetic (I4, I5)."""
        before, after = EntryName.parse(name), EntryName.parse(new_name)
        expected = (
            before.key,
            max(0, before.attempts + attempts),
            before.crashes + crashes,
            before.returns + returns,
        )
        if (after.key, after.attempts, after.crashes, after.returns) != expected:
            what = "I5" if after.returns == expected[3] and after.key == expected[0] else "I4"
            self.fail(what, f"{request.process.name} renamed {name} to {new_name}, not to {expected}")

    def _withdrawn(self, request: Request, name: str) -> None:
        story = self.stories.get(EntryName.parse(name).key)
        if story is None or story.acknowledged or request.process is not story.pushed_by:
            self.fail("I1", f"{request.process.name} removed {name} from new/")
        story.end = "withdrawn"

    def _left_cur(self, request: Request, name: str, destination: str, new_name: str) -> None:
        owner = owner_of(name)
        if owner is None:
            return self._moved(request, name, new_name, attempts=0, crashes=0)
        holder, mover = self.processes.get(owner.pid), request.process
        story = self.stories.get(EntryName.parse(name).key)
        if mover is holder:
            self._settled(request, name, destination, new_name)
        else:
            self.taken_back += 1
            believed = self.leases.get(owner.lease)
            if self.is_live(owner.lease):
                if holder is not None and holder.alive and name in self.held.get(owner.pid, ()):
                    self.fail("I3", f"{mover.name} took {name} from {holder.name}, which lives and holds it")
                if believed is not None and believed.family is not mover.family:
                    self.fail("I6", f"{mover.name} took {name} under another's live lease")
            match destination:
                case "new":
                    charged = EntryName.parse(new_name).crashes > EntryName.parse(name).crashes
                    if not charged and name in self.begun and story is not None:
                        self._forgiven(name, story, holder)
                    if charged and EntryName.parse(new_name).crashes >= MAX_CRASHES:
                        self.fail(
                            "I5", f"its workers died {MAX_CRASHES} times, and it is not buried: {new_name}"
                        )
                    self._moved(
                        request, name, new_name, attempts=0 if charged else -1, crashes=1 if charged else 0
                    )
                case "dead":
                    if EntryName.parse(new_name).crashes < MAX_CRASHES:
                        self.fail("I5", f"buried before the crash limit: {new_name}")
                    self._moved(request, name, new_name, attempts=0, crashes=1)
                case _:
                    self.fail("I7", f"{mover.name} settled {name}, which is not its own")
        self.left[name] = mover
        if story is not None and destination in ("", "dead"):
            story.end = destination or "acked"
            if destination == "dead":
                self._must_have_reason(EntryName.parse(new_name))

    def _forgiven(self, name: str, story: Story, holder: Process | None) -> None:
        """The attempt is given back (I5): only when its worker died for a fence, or outside a handler.

        The design says so on purpose: what a worker that dies between handler and settle has done may be done again,
        but the message is not to blame for that death.
        """
        if holder is None or holder.alive or (name in self.died_in and not holder.by_fence):
            self.fail("I5", f"released uncharged, though its worker did not die outside a handler: {name}")
        story.starts -= 1

    def _settled(self, request: Request, name: str, destination: str, new_name: str) -> None:
        outcome = self.outcomes.get(name, "not handled")
        self.handling.pop(request.process.pid, None)
        match destination:
            case "":
                if outcome != "Acked":
                    self.fail("I5", f"acked, but its handler has {outcome}: {name}")
            case "dead" | "later":
                uncharged = EntryName.parse(new_name).attempts < EntryName.parse(name).attempts
                self._moved(request, name, new_name, attempts=-1 if uncharged else 0, crashes=0)
            case "new":
                self._moved(request, name, new_name, attempts=-1, crashes=0)
            case _:
                self.fail("I2", f"moved to nowhere: {request}")

    def _must_have_reason(self, dead: EntryName) -> None:
        found = self.world.server.look(f"{self.layout.reasons}/{dead.key},n={dead.returns}.json")
        if not isinstance(found, File) or not found.data.strip().endswith(b"}"):
            self.fail("reason", f"buried without a reason: {dead.waiting()}")

    def _requeued(self, name: str, new_name: str) -> None:
        before, after = EntryName.parse(name), EntryName.parse(new_name)
        if after.returns != before.returns + 1:
            self.fail("I4", f"requeued {name} as {new_name}")
        story = self.stories[before.key]
        story.starts, story.end = 0, ""

    def _beaten(self, request: Request, name: str, new_name: str) -> None:
        before, after = split_beat(name), split_beat(new_name)
        assert before is not None
        believed = self.leases[before[0]]
        if after != (before[0], before[1] + 1) or believed.family is not request.process.family:
            self.fail("I6", f"{request.process.name} renamed a lease: {request}")
        believed.beaten, believed.sent = self.world.now, request.sent

    def _fenced(self, request: Request, name: str) -> None:
        lease = split_beat(name)
        assert lease is not None
        believed = self.leases[lease[0]]
        if getattr(believed.family, "alive", False):
            if request.process.family is believed.family and lease[0] == believed.family.lease():
                self.fail("I6", f"{request.process.name} fenced {name}, which is its own")
            silent = self.world.now - believed.beaten
            if silent < TTL_SECONDS - _SLACK:
                self.fail("I6", f"{request.process.name} fenced {name} after {silent:.2f} s")
            self._must_have_been_patient(request, name, believed)

    def _must_have_been_patient(self, request: Request, name: str, believed: Believed) -> None:
        """Where the server did not rename for so long that a beat of one's own must have failed, one waits anew."""
        for start, end in self.world.quiet:
            since = max(start, believed.beaten)
            if end - since > _NOTICED_SECONDS and self.world.now - end < TTL_SECONDS - _SLACK:
                self.fail(
                    "I6",
                    f"{request.process.name} fenced {name} {self.world.now - end:.2f} s after the server was back",
                )

    # What processes believe

    def ended(self, process: Process) -> None:
        """It is on no handler any more."""
        self.handling.pop(process.pid, None)

    def dies(self, process: Process) -> None:
        claimed = self.handling.pop(process.pid, None)
        if claimed is not None and claimed not in self.outcomes:
            self.died_in.add(claimed)

    def acknowledged(self, key: str, data: bytes) -> None:
        story = self.stories.get(key)
        if story is None or story.end == "withdrawn":
            self.fail("I1", f"acknowledged, but never in new/: {key}")
        if key in self.unsynced:
            self.fail("I1", f"acknowledged before its name is on the disk: {key}")
        if story.data != data:
            self.fail("I9", f"pushed other bytes than were given: {key}")
        story.acknowledged = True

    def begins(self, process: Process, claimed: str, data: bytes) -> None:
        """A handler starts."""
        entry, owner = EntryName.parse(claimed), owner_of(claimed)
        story = self.stories[entry.key]
        if data != story.data:
            self.fail("I9", f"the handler got other bytes than were pushed: {claimed}")
        story.starts += 1
        self.begun.add(claimed)
        if story.starts > entry.attempts:
            self.fail(
                "I5", f"{story.starts} handlers began, {entry.attempts} attempts are charged: {claimed}"
            )
        for pid, other in self.handling.items():
            rival = owner_of(other)
            if (
                EntryName.parse(other).key == entry.key
                and owner is not None
                and rival is not None
                and self.processes[pid].alive
                and pid != process.pid
                and self.is_live(owner.lease)
                and self.is_live(rival.lease)
            ):
                self.fail("I3", f"two hold it under live leases: {claimed} and {other}")
        self.handling[process.pid] = claimed

    def ends(self, process: Process, claimed: str, outcome: str) -> None:
        """A handler has returned or raised."""
        self.outcomes[claimed] = outcome
        self.stories[EntryName.parse(claimed).key].finished += 1

    def reports_settled(self, process: Process, claimed: str) -> None:
        self.handling.pop(process.pid, None)
        if self.left.get(claimed) is not process:
            by = self.left.get(claimed)
            self.fail(
                "I7", f"{process.name} believes it settled {claimed}; {by.name if by else 'nobody'} did"
            )

    def reports_lost(self, process: Process, claimed: str) -> None:
        self.handling.pop(process.pid, None)
        if claimed not in self.left:
            self.fail("I7", f"{process.name} believes that it lost {claimed}, and nobody took it")

    def believes_fenced(self, lease: str) -> None:
        if self.is_live(lease):
            self.fail("I6", f"an owner takes itself for fenced, and is not: {lease}")
