"""Effects of handlers: told as done only once they are, and ended only by who has begun them last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maildefer.digest import blake2b
from maildefer.errors import MaildeferError
from maildefer.maildir.idempotency import effects
from maildefer.maildir.idempotency.effects import Effect
from maildefer.maildir.layout import Layout
from tests.simulation.scheduler import Process
from tests.simulation.server import Node
from tests.simulation.world import Request, short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle


_RAISES_CHANCE = 0.1


@dataclass(slots=True)
class Effects:
    oracle: Oracle
    begun: dict[str, int] = field(default_factory=dict)  # by path: who has begun it last, as the server knows
    known: set[str] = field(default_factory=set)  # begun, as somebody was told
    happened: set[tuple[str, int]] = field(default_factory=set)
    done: set[str] = field(default_factory=set)  # as the server knows
    ended: set[str] = field(default_factory=set)  # as somebody was told

    def __post_init__(self) -> None:
        effects._durable.clear()

    def moved(self, request: Request, node: Node) -> None:
        """The server has renamed an effect's folder to its place, or its file."""
        folder, _, name = request.destination.rpartition("/")
        if ",done," not in name:
            self.begun[folder if ",begun," in name else request.destination] = request.process.pid
            return
        if self.begun[folder] != request.process.pid:
            self.oracle.fail("effect", f"{request.process.name} ends what another has begun: {request}")
        if (folder, request.process.pid) not in self.happened:
            self.oracle.fail("effect", f"it ends before it has happened: {request}")
        self.done.add(folder)

    def have(self, layout: Layout, key: str, process: Process, seconds: float) -> MaildeferError | None:
        """Have an effect as a handler does that asks the other side; the fault that kept it from that."""
        client, random = process.client, self.oracle.world.scheduler.random
        hashed = blake2b(key.encode(), digest_size=16).hexdigest()
        effect = Effect(layout, hashed, f"{key}\0effect".encode(), system=client.system)
        was_known, was_ended = effect.path in self.known, effect.path in self.ended
        try:
            state = effect.begin()
            if state == "done":
                if effect.path not in self.done:
                    self.oracle.fail("effect", f"it is told as done, and is not: {short(effect.path)}")
                return None
            if was_ended or (was_known and state == "new"):
                self.oracle.fail("effect", f"{process.name} is told that it is {state}: {short(effect.path)}")
            self.known.add(effect.path)
            client.sleep(seconds / 2)
            self.happened.add((effect.path, process.pid))
            client.sleep(seconds / 2)
            if random.random() < _RAISES_CHANCE:
                return MaildeferError("raised in the block")
            if not effect.end():
                return MaildeferError("another has begun it")
        except MaildeferError as fault:
            return fault
        if effect.path not in self.done:
            self.oracle.fail("effect", f"{process.name} is told that it has ended: {short(effect.path)}")
        self.ended.add(effect.path)
        return None
