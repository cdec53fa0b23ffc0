"""Publishes what a claim has committed, whoever its claimer was: from the outboxes of all queues of the project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from maildefer.errors import QueueMissing, StorageFault, raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.claims import Claim
from maildefer.maildir.drafts.placer import DraftPlacer
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import HANDED_ON, unique_of
from maildefer.maildir.outbox.outputs import Outputs, outbox_of
from maildefer.maildir.pop import Popped
from maildefer.maildir.system import SYSTEM, System

_PUT_OFF_SECONDS: Final = 30.0


class Outboxes:
    """The outboxes of a project's queues, for one process."""

    def __init__(self, queues: Callable[[], Sequence[Layout]], *, system: System = SYSTEM) -> None:
        """`queues` is called once, when something is sent, or is to be published."""
        self._list_queues = queues
        self._system = system
        self._known: dict[str, Layout] = {}

    def begin(self, claim: Claim) -> Outputs:
        """Begin the outputs of an attempt."""
        return Outputs(unique_of(claim.name), self._queues, system=self._system)

    def finish(self, claim: Claim) -> None:
        """Publish what is committed in the claim's name, of which any part may have been published before.

        Raises QueueMissing if a queue of the project is away, for which it may be, and StorageFault's kinds.
        """
        self.publish(claim._claimer.layout, claim.committed)
        if claim.committed.endswith(HANDED_ON):
            claim.committed = ""  # no later name needs to say it

    def is_settled(self, claim: Claim) -> bool:
        """Finish a claim of a program: ack it if its handlers are done, or put it off where that fails.

        Returns False for what is to be handled. Raises ClaimLost, StorageFault's kinds.
        """
        try:
            self.finish(claim)
        except (StorageFault, QueueMissing):
            claim.postpone(_PUT_OFF_SECONDS)
            return True
        if claim.committed:
            claim.ack()
        return claim.committed != ""

    def is_ended(self, home: Layout, popped: Popped) -> bool:
        """The same for an entry that was popped; where it fails, the entry goes back."""
        try:
            self.publish(home, popped.entry.outputs)
        except (StorageFault, QueueMissing):
            popped.move_to(home.new)
            return True
        return popped.entry.is_handled and popped.unlink()

    def publish(self, home: Layout, outputs: str) -> None:
        """The same for an entry that this process has in `cur/` of the queue `home`, with these OUTPUTS in its name."""
        system, token = self._system, outputs.removesuffix(HANDED_ON)
        if home.path not in self._queues:
            raise QueueMissing(
                home.path, "or not in the settings here, which would say where its handlers have sent"
            )
        try:
            durable.sync_directory(home.cur, system=system)  # whoever has committed may have died before that
        except OSError as fault:
            raise_named(home.cur, fault)
        for layout in self._queues.values():
            try:
                DraftPlacer(layout, system=system).finish(_drafts_in(layout, token, system))
                for folder in (layout.new, layout.later_new):  # whoever has published others may have died
                    durable.sync_directory(folder, system=system)
            except OSError as fault:
                raise_named(layout.new, fault)

    @property
    def _queues(self) -> dict[str, Layout]:
        if not self._known:
            self._known = {layout.path: layout for layout in self._list_queues()}
        return self._known


def _drafts_in(layout: Layout, token: str, system: System) -> list[tuple[str, str]]:
    """Return the drafts of that token in a queue's outbox, with their keys."""
    outbox = outbox_of(layout)
    try:
        system.utime(layout.control)  # an NFS client may have looked the outbox up in vain
    except FileNotFoundError as fault:
        raise QueueMissing(layout.path, "what handlers have sent may be there: mount it") from fault
    try:
        listed = doubt.fresh_listing(outbox, system)
    except FileNotFoundError:  # nothing was ever sent to it
        return []
    return [(f"{outbox}/{name}", name.partition(".")[2]) for name in listed if name.startswith(f"{token}.")]
