"""Freeing conversation tokens that nobody holds any more: own ones by the audit, dead owners' once their lease is gone.

The same rules as for claims (see `recover`), and for as long: a request of the dead may take a token late. But a token
is never charged or buried, it just becomes free.
"""

from __future__ import annotations

from collections.abc import Callable

from maildefer.maildir.doubt import fresh_listing
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import Owner, owner_of
from maildefer.maildir.rights.confined import inside
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
        """`look` reads the board; it is called after each listing, for all tokens that this has shown."""
        self._layout = layout
        self._observer = observer
        self._own = own
        self._read_board = look
        self._refusals = FailedMoves(system=system) if refusals is None else refusals
        self._system = inside(layout.path, system)

    def scan(self) -> int:
        """Free what nobody holds; returns how many. Raises OSError; a single token is tried again by itself."""
        own, held = self._own(), self._held_tokens()
        self._refusals.keep(held)
        state_of = self._read_board()
        over = [name for name, owner in held.items() if owner.lease == own and state_of(owner) != "held"]
        gone = self._observer.abandoned({owner.lease for owner in held.values()})
        over += [name for name, owner in held.items() if owner.lease in gone]
        reclaimed = 0
        for name in filter(self._refusals.may_try, over):
            try:
                reclaimed += self._reclaim_token(name)
            except OSError as fault:
                self._refusals.note(name, fault)
            else:
                self._refusals.forget(name)
        return reclaimed

    def reclaim_tokens_of(self, pid: int) -> int:
        """Free the tokens of one worker of ours that is known to be dead, under our lease of now. Raises OSError, at
        the end if it is about single tokens."""
        own, reclaimed, fault = self._own(), 0, None
        for name, owner in self._held_tokens().items():
            if (owner.pid, owner.lease) == (pid, own):
                try:
                    reclaimed += self._reclaim_token(name)
                except OSError as refused:  # the others must not wait for this one
                    fault = refused
        if fault is not None:
            raise fault
        return reclaimed

    def _held_tokens(self) -> dict[str, Owner]:
        """Who holds what, as a fresh listing shows it; names that we don't know are left alone."""
        try:
            listed = fresh_listing(f"{self._layout.tokens}/held", self._system)
        except FileNotFoundError:  # there has been no conversation yet
            return {}
        return {name: owner for name in listed if (owner := owner_of(name)) is not None}

    def _reclaim_token(self, name: str) -> bool:
        """Needs no answer: gone means that somebody did it."""
        try:
            self._system.rename(held_path(self._layout, name), free_path(self._layout, name))
        except FileNotFoundError:
            return False
        return True
