"""Reclaiming tokens that nobody holds: own ones by the audit, dead owners' when their lease is gone.

The rules are those for claims (see `reclaim`), and apply for as long: a dead process's request may take a token late.
But a token is never charged or buried; it only becomes free.
"""

from __future__ import annotations

from collections.abc import Callable

from maildefer.maildir.doubt import fresh_listing
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import Owner, owner_of
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.failed_moves import FailedMoves
from maildefer.maildir.upkeep.observer import LeaseObserver
from maildefer.maildir.upkeep.reclaim import StateOf
from maildefer.maildir.upkeep.tokens import free_path, held_path


class TokenReclaimer:
    """The scans of one queue's taken tokens; one thread only, that of the queue's `Reclaimer`."""

    def __init__(
        self,
        layout: Layout,
        observer: LeaseObserver,
        *,
        own: Callable[[], str],
        look: Callable[[], StateOf],
        refusals: FailedMoves | None = None,
        system: System = SYSTEM,
    ) -> None:
        """`look` reads the scoreboard; it is called after each listing, for all tokens that the listing has shown."""
        self._folders = (layout.tokens, layout.limits)
        self._limits = layout.limits
        self.overlaps: list[str] = []  # the owners of limits' slots that the last scan reclaimed: LEASE.PID
        self._observer = observer
        self._own = own
        self._read_board = look
        self._refusals = FailedMoves(system=system) if refusals is None else refusals
        self._system = confined_to(layout.path, system)

    def scan(self) -> int:
        """Reclaim tokens that nobody holds; returns how many. Raises OSError; single tokens are tried again later."""
        own, held = self._own(), self._held_tokens()
        self._refusals.keep(held)
        state_of = self._read_board()
        over = [path for path, owner in held.items() if owner.lease == own and state_of(owner) != "held"]
        gone = self._observer.abandoned({owner.lease for owner in held.values()})
        over += [path for path, owner in held.items() if owner.lease in gone]
        reclaimed, self.overlaps = 0, []
        for path in filter(self._refusals.may_try, over):
            owner = held[path]
            try:
                is_ours = self._reclaim_token(path)
            except OSError as fault:
                self._refusals.note(path, fault)
                continue
            self._refusals.forget(path)
            reclaimed += is_ours
            if is_ours and owner.lease in gone and path.startswith(self._limits):
                self.overlaps.append(f"{owner.lease}.{owner.pid}")
        return reclaimed

    def reclaim_tokens_of(self, pid: int) -> int:
        """Reclaim the tokens of a worker of ours that is known to be dead, under our present lease.

        Raises OSError; if single tokens could not be moved, after all others.
        """
        own, reclaimed, fault = self._own(), 0, None
        for path, owner in self._held_tokens().items():
            if (owner.pid, owner.lease) == (pid, own):
                try:
                    reclaimed += self._reclaim_token(path)
                except OSError as refused:  # the others must not wait for this one
                    fault = refused
        if fault is not None:
            raise fault
        return reclaimed

    def _held_tokens(self) -> dict[str, Owner]:
        """Return the owner of each taken token, by its path, by fresh listings; unknown names are left alone."""
        held: dict[str, Owner] = {}
        for folder in self._folders:
            try:
                listed = fresh_listing(f"{folder}/held", self._system)
            except FileNotFoundError:  # there has been no conversation, or no limit, yet
                continue
            held |= {
                held_path(folder, name): owner for name in listed if (owner := owner_of(name)) is not None
            }
        return held

    def _reclaim_token(self, path: str) -> bool:
        """Make one token free; it needs no doubt settled: if the name is gone, it was reclaimed or released."""
        folder, _, name = path.rpartition("/held/")
        try:
            self._system.rename(path, free_path(folder, name))
        except FileNotFoundError:
            return False
        return True
