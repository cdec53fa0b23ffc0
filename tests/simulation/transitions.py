"""What the server does to entries: each transition has its own arithmetic, and its own right to be made."""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.names import DRAFT
from maildefer.maildir.names import HANDED_ON, EntryName, is_popped, unique_of
from maildefer.maildir.reasons import reason_path
from tests.simulation import periodic
from tests.simulation.histories import FAILED, History
from tests.simulation.name_cache import entry_in, owner_in
from tests.simulation.scheduler import Process
from tests.simulation.server import File, Node
from tests.simulation.world import MAX_CRASHES, Request, short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

_LONGEST_DEFER_SECONDS = 70.0  # an entry that can't be read waits for a minute
# Or for ten, if it has waited for limits, and one worker met three faults in a row.
_LONGEST_FAULT_SECONDS = 610.0
_EARLIEST_SECONDS = 0.5
_DRIFT_SECONDS = 0.1  # of a host's boot clock, in the time for which it keeps what it has measured
LATEST_PUSH_SECONDS = 8.0
_LONGEST_LATER_SECONDS = LATEST_PUSH_SECONDS + 20.0  # a clock that took long to measure may be so much ahead


@dataclass(slots=True)
class Transitions:
    oracle: Oracle

    def pushed(self, request: Request, node: Node, name: str) -> None:
        assert isinstance(node, File)
        key = entry_in(name).key
        oracle, due = self.oracle, entry_in(name).due
        oracle.unsynced[key] = request.destination.rpartition("/")[0]
        wanted = oracle.wanted.get(request.process.pid, 0.0)
        if request.late or request.source.endswith(DRAFT):  # by whom another time may be wanted by now
            wanted = float(due or 0)
        if not wanted - _DRIFT_SECONDS <= (due or 0) <= oracle.world.mount_time + _LONGEST_LATER_SECONDS:
            oracle.fail("due", f"{request.process.name} asked for {wanted:.3f}, and pushed {name}")
        # Else a handoff to another filesystem.
        if request.destination.startswith(f"{oracle.layouts[0].path}/"):
            oracle.keyed.pushed(key, node.data)
        oracle.histories[key] = History(node.data, request.process, not_before=wanted)
        if node.data.startswith(periodic.DATA) and request.destination.startswith(
            f"{oracle.layouts[0].new}/"
        ):
            oracle.periodic.called(key)

    def pushed_by_one_sync(self, request: Request, node: Node, draft: str, name: str) -> None:
        """By who wrote it, or, where the power failed or that process died, by who has found it."""
        assert isinstance(node, File)
        oracle, key, checksum = self.oracle, entry_in(name).key, int(draft.rsplit(".", 2)[1], 16)
        if crc32(node.data) != checksum:
            oracle.fail("I1", f"{request.process.name} took what is torn for an entry: {name}")
        history = oracle.histories.get(key)
        if history is not None:  # it was there before, and a power cut took it back
            history.not_before, history.pushed_by = float(entry_in(name).due or 0), request.process
        else:
            oracle.wanted.setdefault(request.process.pid, float(entry_in(name).due or 0))
            self.pushed(request, node, name)
        if oracle.world.server.was_durable(node):
            oracle.unsynced.pop(key, None)

    def given_up(self, request: Request, draft: str) -> None:
        """What is torn goes; what was acknowledged never is."""
        history = self.oracle.histories.get(draft.rsplit(".", 2)[0])
        if history is not None and history.acknowledged:
            self.oracle.fail("I1", f"{request.process.name} removed what was acknowledged: {draft}")

    def claimed(self, request: Request, name: str, claimed: str) -> None:
        oracle, owner = self.oracle, owner_in(claimed)
        if owner is None:  # a mail reader, `pop`, or a program that cancels
            before, after = entry_in(name), entry_in(claimed)
            if before.due is not None and before.due > oracle.world.mount_time and after.due != before.due:
                oracle.fail("due", f"{request.process.name} dropped the due time of {name}: {claimed}")
            return
        oracle.claims += 1
        self._must_be_due(request, name)
        if owner.pid != request.process.pid:
            oracle.fail(
                "I3", f"{request.process.name} claims in another's name: {short(request.destination)}"
            )
        self.moved(request, name, claimed, attempts=1, crashes=0, returns=0)

    def _must_be_due(self, request: Request, name: str) -> None:
        """Nothing is claimed before it is due by the mount's time, whatever the clocks of hosts say."""
        history, now = self.oracle.histories.get(entry_in(name).key), self.oracle.world.mount_time
        if history is not None and now < history.not_before - _DRIFT_SECONDS:
            early = history.not_before - now
            self.oracle.fail("due", f"{request.process.name} claimed {name} {early:.3f} s before it was due")

    def postponed(self, request: Request, name: str, new_name: str) -> None:
        """By whoever would have claimed it from `new/` before it is due; nothing is charged, the due time stays."""
        before, after = entry_in(name), entry_in(new_name)
        if before.due is None or after.due != before.due:
            self.oracle.fail("due", f"{request.process.name} postponed {name} as {new_name}")
        self.moved(request, name, new_name, attempts=0, crashes=0)

    def rescheduled(self, request: Request, name: str, new_name: str) -> None:
        after = entry_in(new_name)
        history = self.oracle.histories.get(after.key)
        if history is not None:
            history.not_before = float(after.due or 0)
        self.moved(request, name, new_name, attempts=0, crashes=0)

    def passed_on(self, request: Request, name: str, new_name: str) -> None:
        """A worker takes over what another one of its host has claimed, and no handler has begun with."""
        oracle, before, after = self.oracle, owner_in(name), owner_in(new_name)
        assert before is not None
        assert after is not None
        mover, holder = request.process, oracle.processes.get(before.pid)
        if after.pid != mover.pid:
            oracle.fail("I3", f"{mover.name} takes over in another's name: {short(request.destination)}")
        if before.lease != after.lease or (holder is not None and holder.family is not mover.family):
            oracle.fail("I6", f"{mover.name} took {name} from another host")
        if request.source in oracle.begun:
            oracle.fail("I3", f"{mover.name} took over {name}, whose handler had begun")
        self.moved(request, name, new_name, attempts=0, crashes=0, returns=0)
        oracle.left[request.source] = mover
        oracle.passed.add(request.source)

    def moved(
        self,
        request: Request,
        name: str,
        new_name: str,
        *,
        attempts: int,
        crashes: int,
        failures: int = 0,
        handoffs: int = 0,
        returns: int = 1,
        outputs: str | None = None,
    ) -> None:
        """The counters go as the design says (I4, I5)."""
        before, after = entry_in(name), entry_in(new_name)
        kept = before.outputs if outputs is None else outputs
        if kept.endswith(HANDED_ON) and not after.outputs and name in request.source:
            self.oracle.outputs.end(name)  # nothing is left of them, so that no later name says it
            kept = ""
        unique, grown = self._unique_after(request, before, after), 0
        if kept:
            grown = 0 if unique == before.unique else self._grown(name, before, after, returns)
            unique = "" if outputs else before.unique
        expected = replace(
            before,
            attempts=max(0, before.attempts + attempts),
            crashes=before.crashes + crashes,
            failures=before.failures + failures,
            handoffs=before.handoffs + handoffs,
            returns=before.returns + returns + (0 if outputs else grown),
            due=after.due,
            unique=unique,
            outputs=kept,
        )
        if after != expected:
            what = "I5" if after.returns == expected.returns and after.key == expected.key else "I4"
            wanted = expected.waiting()
            self.oracle.fail(what, f"{request.process.name} renamed {name} to {new_name}, not to {wanted}")

    @staticmethod
    def _grown(name: str, before: EntryName, after: EntryName, returns: int) -> int:
        """By how much more `n` has grown in the place of a new UNIQUE, which nobody can know before."""
        if owner_in(name) is not None:
            return int(unique_of(name)[:5], 16)
        return max(0, after.returns - before.returns - returns)

    def _unique_after(self, request: Request, before: EntryName, after: EntryName) -> str:
        """Where a front end shares the queue, what leaves `cur/` is named for its claim (I2); else as it was.

        What a mail reader has moved was not claimed, and what `pop` has left may look like it: that is named afresh.
        """
        source, queue, name = self.oracle.place(request.source)
        is_planned = source in ("new", "later") and (
            request.destination.startswith(f"{self.oracle.layouts[0].later_new}/")
            or request.process.pid in self.oracle.planners
        )
        if is_planned and self.oracle.world.fault_rates.shared and queue is self.oracle.layouts[0]:
            return after.unique or "another"
        if source != "cur" or request.destination.startswith(f"{self.oracle.layouts[0].cur}/"):
            return before.unique
        if not self.oracle.world.fault_rates.shared or queue is not self.oracle.layouts[0]:
            return before.unique
        if owner_in(name) is not None:
            return unique_of(name)
        return after.unique if after.unique not in ("", before.unique) else "another"

    def committed(self, request: Request, name: str, new_name: str) -> None:
        """The claim goes on, under a name that says that its handlers are done."""
        oracle, owner = self.oracle, owner_in(name)
        if owner is None or owner.pid != request.process.pid:
            oracle.fail("I7", f"{request.process.name} commits for another: {request}")
        if oracle.outcomes.get(request.source) == "HandedOff":
            self._must_be_shipped(request, name)
        after = entry_in(new_name)
        if not after.is_handled:
            oracle.fail(
                "outputs", f"it says that its handlers are done, and that others are to handle it: {new_name}"
            )
        self.moved(request, name, new_name, attempts=0, crashes=0, returns=0, outputs=after.outputs)
        oracle.outputs.are_committed(request, name, new_name)

    def withdrawn(self, request: Request, name: str) -> None:
        history = self.oracle.histories.get(entry_in(name).key)
        if history is None or history.acknowledged or request.process is not history.pushed_by:
            self.oracle.fail("I1", f"{request.process.name} removed {name} from new/")
        history.end = "withdrawn"

    def handed_off(self, request: Request, name: str, new_name: str) -> None:
        """To another queue's new/: attempts start anew, crashes go along, and the handoff is counted."""
        oracle, entry = self.oracle, entry_in(name)
        oracle.is_off(request.process, request.source)
        if oracle.outcomes.get(request.source) != "HandedOff":
            oracle.fail("I7", f"{request.process.name} handed off {name}, whose handler did not say so")
        self.moved(
            request,
            name,
            new_name,
            attempts=-entry.attempts,
            failures=-entry.failures,
            crashes=0,
            handoffs=1,
            outputs=entry_in(new_name).outputs or None,
        )
        if entry_in(new_name).outputs:
            oracle.outputs.are_committed(request, name, new_name)
        oracle.outputs.begin_anew(entry.key)
        oracle.left[request.source] = request.process
        oracle.histories[entry_in(name).key].counted_anew(entry_in(new_name).returns)

    def left_cur(self, request: Request, queue: Layout, name: str, destination: str, new_name: str) -> None:
        owner, oracle = owner_in(name), self.oracle
        history = oracle.histories.get(entry_in(name).key)
        if owner is None:
            if is_popped(name):
                return self._popped(request, history, destination, name, new_name)
            return self.moved(request, name, new_name, attempts=0, crashes=0)
        holder, mover = oracle.processes.get(owner.pid), request.process
        if mover is holder:
            self._settled(request, name, destination, new_name)
        else:
            oracle.reclaimed += 1
            if oracle.is_live(request.source):
                if holder is not None and holder.alive and name in oracle.held.get(owner.pid, ()):
                    oracle.fail(
                        "I3", f"{mover.name} took {name} from {holder.name}, which lives and holds it"
                    )
                if oracle.beats.family(queue, owner.lease) is not mover.family:
                    oracle.fail("I6", f"{mover.name} took {name} under another's live lease")
            self._check_reclaim(request, name, destination, new_name)
        oracle.left[request.source] = mover
        if history is not None and destination in ("", "dead"):
            history.end = destination or "acked"
            if destination == "dead":
                self._must_have_reason(queue, entry_in(new_name))
        return None

    def _check_reclaim(self, request: Request, name: str, destination: str, new_name: str) -> None:
        oracle = self.oracle
        before, after = entry_in(name), entry_in(new_name)
        history = oracle.histories.get(before.key)
        owner = owner_in(name)
        holder = oracle.processes.get(owner.pid) if owner else None
        match destination:
            case "new":
                charged = after.crashes > before.crashes
                if charged and after.crashes >= MAX_CRASHES and not before.is_handled:
                    oracle.fail(
                        "I5", f"its workers died {MAX_CRASHES} times, and it is not buried: {new_name}"
                    )
                if not charged and request.source in oracle.begun and history is not None:
                    self._forgiven(request.source, history, holder)
                self.moved(request, name, new_name, attempts=0 if charged else -1, crashes=int(charged))
            case "dead":
                if before.crashes + 1 < MAX_CRASHES:
                    oracle.fail("I5", f"buried before the crash limit: {name}")
                self._buried(request, name, new_name)
            case _:
                oracle.fail("I7", f"{request.process.name} settled {name}, which is not its own")

    def _forgiven(self, claimed: str, history: History, holder: Process | None) -> None:
        """The attempt is given back (I5): only when its worker died for a fence or a drain, or outside a handler.

        The design says so on purpose: what a worker that dies between handler and settle has done may be done again,
        but the message is not to blame for that death.
        """
        oracle = self.oracle
        if holder is None or holder.alive or (claimed in oracle.died_in and not holder.spared):
            oracle.fail(
                "I5", f"released uncharged, though its worker did not die outside a handler: {short(claimed)}"
            )
        history.given_back()

    def _settled(self, request: Request, name: str, destination: str, new_name: str) -> None:
        oracle = self.oracle
        outcome = oracle.outcomes.get(request.source, "not handled")
        oracle.is_off(request.process, request.source)
        if entry_in(name).is_handled:  # by whoever was first, or by another claimer
            return self._finished(request, name, destination, new_name)
        match destination:
            case "":
                if outcome == "HandedOff":
                    self._must_be_shipped(request, name)
                elif outcome != "Acked":
                    oracle.fail("I5", f"acked, but its handler has {outcome}: {name}")
            case "dead":
                self._buried(request, name, new_name)
            case "later":
                self._must_be_due_soon(request, new_name)
                uncharged = entry_in(new_name).attempts < entry_in(name).attempts
                if uncharged and request.source in oracle.begun:
                    self._given_back(request, name)
                self.moved(
                    request,
                    name,
                    new_name,
                    attempts=-1 if uncharged else 0,
                    crashes=0,
                    failures=int(outcome == FAILED and not uncharged),
                )
            case "new":
                if request.source in oracle.begun:
                    self._given_back(request, name)
                self.moved(request, name, new_name, attempts=-1, crashes=0)
            case _:
                oracle.fail("I2", f"moved to nowhere: {request}")
        return None

    def _finished(self, request: Request, name: str, destination: str, new_name: str) -> None:
        """Its handlers are done: it is acked once what they have sent is in its place, or put off until that can be."""
        match destination:
            case "":
                self.oracle.outputs.end(name)
            case "later" | "new":
                self.moved(request, name, new_name, attempts=-1, crashes=0)
            case _:
                self.oracle.fail("outputs", f"its handlers are done, and it is buried: {request}")

    def _must_be_due_soon(self, request: Request, name: str) -> None:
        """By the mount's time, whatever clock its host has."""
        due, key = entry_in(name).due, entry_in(name).key
        limited = self.oracle.world.fault_rates.limits
        longest = _LONGEST_FAULT_SECONDS if limited else _LONGEST_DEFER_SECONDS
        is_late = due is not None and due > self.oracle.world.mount_time + longest
        if is_late and key not in self.oracle.limits.waiting:  # a rate's line may be long
            self.oracle.fail("due", f"{request.process.name} deferred for much longer than it was to: {name}")

    def promoted(self, request: Request, name: str, new_name: str) -> None:
        due, key = entry_in(name).due, entry_in(name).key
        is_early = due is not None and due > self.oracle.world.mount_time + _EARLIEST_SECONDS
        if is_early and key not in self.oracle.limits.waiting:
            self.oracle.fail("due", f"{request.process.name} promoted long before it was due: {name}")
        self.moved(request, name, new_name, attempts=0, crashes=0)

    def _given_back(self, request: Request, name: str) -> None:
        """By its own worker, after the handler (I5): only a worker that is told to end has no patience with a fault."""
        if not request.process.stopping:
            self.oracle.fail("I5", f"given back uncharged, though its handler had begun: {name}")
        self.oracle.histories[entry_in(name).key].given_back()

    def _must_be_shipped(self, request: Request, name: str) -> None:
        """Across filesystems a copy has to be in the other queue, and on its disk, before the ack (I1)."""
        oracle = self.oracle
        history = oracle.histories[entry_in(name).key]
        copies = [
            copy
            for key, copy in oracle.histories.items()
            if copy.pushed_by is request.process
            and copy.data == history.data
            and copy is not history
            and copy.end != "withdrawn"
            and key not in oracle.unsynced
        ]
        if not copies:
            oracle.fail("I1", f"acked before its copy is on the other disk: {name}")
        copies[-1].acknowledged = True  # an earlier one was given up: its withdrawal may still be under way

    def seized(self, request: Request, name: str, new_name: str) -> None:
        """`pop` takes what a mail reader has moved."""
        if owner_in(name) is not None or is_popped(name) or not is_popped(new_name):
            self.oracle.fail("I3", f"{request.process.name} renamed a claim in cur/: {request}")
        self.moved(request, name, new_name, attempts=0, crashes=0, returns=0)

    def _popped(
        self, request: Request, history: History | None, destination: str, name: str, new_name: str
    ) -> None:
        """`pop` ends an entry at once; what its crash leaves, a keeper returns."""
        if destination == "":
            if entry_in(name).is_handled:
                self.oracle.outputs.end(name)
            if history is not None:
                history.end, history.ended_by = "popped", request.process
        elif destination == "new":
            self.moved(request, name, new_name, attempts=0, crashes=0)
        elif destination == "dead":
            self.oracle.fail("I5", f"buried without an attempt: {request}")
        else:
            self.oracle.fail("I2", f"popped to nowhere: {request}")

    def _buried(self, request: Request, name: str, new_name: str) -> None:
        """Its counters are in its reason alone, so that they start anew."""
        before = entry_in(name)
        self.moved(
            request,
            name,
            new_name,
            attempts=-before.attempts,
            crashes=-before.crashes,
            failures=-before.failures,
        )

    def _must_have_reason(self, queue: Layout, dead: EntryName) -> None:
        found = self.oracle.world.server.look(reason_path(queue, dead))
        if not isinstance(found, File) or not found.data.strip().endswith(b"}"):
            self.oracle.fail("reason", f"buried without a reason: {dead.waiting()}")

    def requeued(self, name: str, new_name: str) -> None:
        before, after = entry_in(name), entry_in(new_name)
        if after.returns != before.returns + 1 or after.unique_key != before.unique_key:
            self.oracle.fail("I4", f"requeued {name} as {new_name}")
        self.oracle.outputs.begin_anew(before.key)
        history = self.oracle.histories[before.key]
        history.counted_anew(after.returns)
        history.end = ""
