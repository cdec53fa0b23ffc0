"""What the server does to conversation tokens: each is in one place, and in one worker's hands at a time (I3, I4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maildefer.maildir.rights.folder import MARK
from tests.simulation.name_cache import entry_in, owner_in
from tests.simulation.scheduler import Process
from tests.simulation.world import Request, short

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle


@dataclass(slots=True)
class Conversations:
    oracle: Oracle
    minded: Callable[[], bool] = lambda: True  # whether any keeper looks after tokens
    # By pid: conversation, and claim it is for.
    held: dict[int, tuple[str, str]] = field(default_factory=dict)

    def begins(self, process: Process, conversation: str, claimed: str) -> None:
        """A handler of that conversation starts; the tokens of all lie in the first queue, under its leases."""
        oracle = self.oracle
        for pid, (other, for_claim) in self.held.items():
            rival = oracle.processes[pid]
            if (
                other == conversation
                and pid != process.pid
                and rival.alive
                and self._is_live(process)
                and self._is_live(rival)
            ):
                oracle.fail("I3", f"two are in one conversation: {short(claimed)} and {short(for_claim)}")
        self.held[process.pid] = conversation, claimed

    def calls(self, process: Process, claimed: str) -> None:
        """An exclusive function is called: under a token, unless the host has lost its lease."""
        oracle, family, layout = self.oracle, process.family, self.oracle.layouts[0]
        folder = oracle.world.server.directories.get(f"{layout.tokens}/held")
        owners = [owner_in(name) for name in (folder.names if folder else ())]
        if not any(owner is not None and owner.pid == process.pid for owner in owners):
            lease = family.leases()[layout.path] if family is not None else ""
            if oracle.beats.is_live(layout, lease):
                oracle.fail("exclusive", f"{process.name} calls without a token: {short(claimed)}")
        self.begins(process, "a batch", claimed)

    def _is_live(self, process: Process) -> bool:
        """Whether it has a token under a live lease: one that lost its lease is told, and killed, in a moment."""
        folder = self.oracle.world.server.directories.get(f"{self.oracle.layouts[0].tokens}/held")
        names = folder.names if folder else ()
        return any(
            owner.pid == process.pid and self.oracle.is_live(f"{self.oracle.layouts[0].tokens}/held/{name}")
            for name in names
            if (owner := owner_in(name)) is not None
        )

    def moved(self, request: Request) -> None:
        """A token is taken, or freed: by its holder, or once that is dead, fenced, or not on it."""
        oracle, name = self.oracle, request.source.rpartition("/")[2]
        before, after = entry_in(name), entry_in(request.destination.rpartition("/")[2])
        owner = owner_in(name)
        if owner is None:
            if request.destination and before != after:
                oracle.fail("I4", f"took another token than was there: {request}")
            return
        if (after.key, after.returns) != (before.key, before.returns + 1):
            oracle.fail("I4", f"freed a token under another name: {request}")
        holder = oracle.processes.get(owner.pid)
        if (
            request.process is holder
            or holder is None
            or not holder.alive
            or not oracle.is_live(request.source)
        ):
            return
        if owner.seq in oracle.held.get(owner.pid, ()):
            oracle.fail("I3", f"{request.process.name} freed a token that {holder.name} holds: {request}")

    def check(self) -> None:
        """In the end: every token in one place, and free."""
        server, home = self.oracle.world.server, self.oracle.layouts[0]
        for place in (home.tokens, home.limits):
            found: Counter[str] = Counter()
            for path, folder in server.directories.items():
                if path.startswith(f"{place}/"):
                    found.update(entry_in(name).key for name in folder.names if name != MARK)
            if doubled := [token for token, count in found.items() if count > 1]:
                self.oracle.fail("I2", f"a token is there more than once: {doubled[0]}")

    def outstanding(self) -> list[str]:
        """Tokens that are taken; but a host in which nobody has conversed yet leaves the dead's until one does."""
        if not self.minded():
            return []
        directories, home = self.oracle.world.server.directories, self.oracle.layouts[0]
        folders = [directories.get(f"{place}/held") for place in (home.tokens, home.limits)]
        return [f"held/{name}" for folder in folders if folder for name in folder.names]
