"""What handlers send: committed before it is seen, seen before its entry ends, all of it, and of one attempt only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from maildefer.errors import MaildeferError
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import HANDED_ON, unique_of
from maildefer.maildir.outbox import outputs
from maildefer.maildir.outbox.current import current, pushing
from maildefer.maildir.push import Pusher
from tests.simulation.name_cache import entry_in
from tests.simulation.scheduler import Process
from tests.simulation.server import File, Node
from tests.simulation.world import Request, short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

_DATA = b"Subject: sent "
_MOST = 3


@dataclass(slots=True)
class SentOutputs:
    oracle: Oracle
    drafts: dict[str, dict[str, Layout]] = field(default_factory=dict)  # by token: keys, and their queues
    committed: dict[str, tuple[str, int]] = field(default_factory=dict)  # by token: the entry, and its stage
    published: dict[str, set[str]] = field(default_factory=dict)  # by token
    ended: set[str] = field(default_factory=set)  # tokens whose outputs nobody has to publish any more
    stages: dict[str, int] = field(default_factory=dict)  # by key: how often its handlers were to begin anew
    slots: dict[int, list[dict[int, Any]]] = field(default_factory=dict)  # by pid: what names its places have

    def __post_init__(self) -> None:
        outputs._durable.clear()

    def send(self, process: Process, claimed: str, data: bytes, host: str) -> MaildeferError | None:
        """Send as a handler does, unless it handles what another has sent; the fault that kept it from that."""
        if current.get() is None or data.startswith(_DATA):
            return None
        oracle, random = self.oracle, self.oracle.world.scheduler.random
        token = unique_of(claimed)
        for number in range(random.randint(0, _MOST)):
            layout = random.choice(oracle.layouts)
            pusher = Pusher(layout, host=host, system=process.client.system)
            body = b"%s%s %d\n\n" % (_DATA, token.encode(), number)
            try:
                key = pushing(pusher)(lambda stem, body=body: [body])  # type: ignore[misc]
            except MaildeferError as fault:
                return fault
            self.drafts.setdefault(token, {})[key] = layout
        return None

    def are_committed(self, request: Request, name: str, new_name: str) -> None:
        """The server has renamed a claimed entry to a name that says so."""
        oracle, after = self.oracle, entry_in(new_name)
        token = after.outputs.removesuffix(HANDED_ON)
        if token != unique_of(name):
            oracle.fail("outputs", f"{request.process.name} commits what another has sent: {new_name}")
        if oracle.outcomes.get(request.source) not in ("Acked", "HandedOff"):
            oracle.fail("outputs", f"its handler has not returned: {request}")
        for key, layout in self.drafts.get(token, {}).items():
            path = f"{outputs.outbox_of(layout)}/{token}.{key}"
            node = oracle.world.server.look(path)
            if not isinstance(node, File):
                oracle.fail("outputs", f"{short(path)} is committed, and gone")
            if node.synced != node.data or not oracle.world.server.is_durable(path):
                oracle.fail("I1", f"{short(path)} is committed, and not on the disk")
        stage = after.key, self.stages.get(after.key, 0)
        if stage in self.committed.values():
            oracle.fail("outputs", f"of two attempts, what they have sent is committed: {new_name}")
        self.committed[token] = stage
        self._rename_in_hand(request.process, name, new_name)

    def _rename_in_hand(self, process: Process, name: str, new_name: str) -> None:
        for shown in self.slots.get(process.pid, ()):
            for place in [place for place, held in shown.items() if held == name]:
                shown[place] = new_name
                self.oracle.held[process.pid].discard(name)
                self.oracle.held[process.pid].add(new_name)

    def moved(self, request: Request, node: Node, name: str) -> None:
        """The server has renamed a draft out of its outbox, or unlinked it."""
        oracle, (token, _, key) = self.oracle, request.source.rpartition("/")[2].partition(".")
        if not name:
            if token in self.committed:
                oracle.fail("outputs", f"{request.process.name} discards what is committed: {request}")
            return
        if token not in self.committed:
            oracle.fail("outputs", f"{request.process.name} publishes before the commit: {request}")
        if oracle.world.server.journal is not None and not self._is_durable(token):
            oracle.fail("I1", f"{request.process.name} publishes before the commit is on the disk: {request}")
        oracle.transitions.pushed(request, node, name)
        self.published.setdefault(token, set()).add(key)

    def _is_durable(self, token: str) -> bool:
        """Whether the commit would survive a power cut; the entry may have ended since, or moved on."""
        server = self.oracle.world.server
        paths = [
            f"{path}/{name}"
            for path in self.oracle.places
            for name in server.directories[path].names
            if f",o={token}" in name
        ]
        return not paths or all(map(server.is_durable, paths))

    def end(self, name: str) -> None:
        """The entry is acked, or its next handlers begin: what was sent before has to be in its place."""
        oracle, token = self.oracle, entry_in(name).outputs.removesuffix(HANDED_ON)
        for key in self.drafts.get(token, ()):
            if key not in self.published.get(token, ()):
                oracle.fail("outputs", f"it has ended, and {key} was not published: {name}")
            if key in oracle.unsynced and oracle.histories[key].end == "":
                oracle.fail("I1", f"it has ended, and {key} is not on the disk: {name}")
            oracle.histories[key].acknowledged = True
        self.ended.add(token)

    def begin_anew(self, key: str) -> None:
        """Its handlers are to begin anew: it was handed on, or requeued."""
        self.stages[key] = self.stages.get(key, 0) + 1

    def check(self, dead: dict[str, bytes]) -> None:
        for token, (key, _) in self.committed.items():
            left = self.drafts.get(token, {}).keys() - self.published.get(token, set())
            history = self.oracle.histories[key]
            if left and key not in dead and history.end != "popped":
                self.oracle.fail("outputs", f"what {key} has sent was never seen: {', '.join(left)}")

    def power_was_cut(self, present: dict[str, str]) -> None:
        """Commits and publications that were not on the disk may be gone; `present`: where each key is."""
        outputs._durable.clear()
        said = {
            entry_in(name).outputs.removesuffix(HANDED_ON)
            for path in self.oracle.places
            for name in self.oracle.world.server.directories[path].names
        }
        for token in list(self.committed):
            seen = {
                key
                for key in self.published.get(token, set())
                if key in present or self.oracle.histories[key].end
            }
            self.published[token] = seen
            if token not in said and token not in self.ended:
                if seen:
                    self.oracle.fail("I1", f"{seen.pop()} is seen, and its commit is gone with the power")
                del self.committed[token]
