"""Where the state of each conversation is kept: the interface, and the stores for one process.

The store that hosts share is `maildefer.handling.state.directory.DirectoryStorage`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from maildefer.handling.handler_marks import FIRST_STATE
from maildefer.handling.project.queue_paths import located, redirected, refuse_to_empty

if TYPE_CHECKING:
    import shelve


class StateStorage:
    """The base of every store. `key` is a module's state key, `sender` the address that the message is from."""

    def get(self, key: str, sender: str | None) -> str:
        """The state's name; `START` for a pair that was never set."""
        raise NotImplementedError

    def set(self, key: str, sender: str | None, state: str) -> None:
        raise NotImplementedError

    def clear(self) -> None:
        """Forget all; for tests and operators."""
        raise NotImplementedError


class EntryStorage(StateStorage):
    """A store that knows which entry moved a state, so that a retry of that entry starts from the state before.

    Without it, a handler that moved its conversation and then failed to be settled (a crash before the ack, another
    handler's exception) would on its retry find the door closed that it has just gone through.
    """

    def end_attempt(self, entry: str) -> None:
        """The attempt at `entry` is over. Until then it gets what it has set; its next try gets what was before."""
        raise NotImplementedError

    def get_for_entry(self, key: str, sender: str | None, entry: str) -> str:
        """The state that `entry` is to start from."""
        raise NotImplementedError

    def set_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        """Move the state on account of `entry`, keeping the one that it started from."""
        raise NotImplementedError

    def begin_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        """Set the state from which `entry` is to start (a handoff to a state function)."""
        raise NotImplementedError


class MemoryStorage(StateStorage):
    """A dictionary; for tests, and for an application without conversations. Safe among threads."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def get(self, key: str, sender: str | None) -> str:
        return self.states.get(repr([key, sender]), FIRST_STATE)

    def set(self, key: str, sender: str | None, state: str) -> None:
        if state == FIRST_STATE:  # what everybody has, nobody needs to keep
            self.states.pop(repr([key, sender]), None)
        else:
            self.states[repr([key, sender])] = state

    def clear(self) -> None:
        self.states.clear()


class ShelveStorage(StateStorage):
    """A shelf in one file, opened for each call. For threads of one process only: a shelf has no lock among processes.

    Keys are written in ASCII, which every dbm takes.
    """

    def __init__(self, database_path: str) -> None:
        self.database_path = database_path
        self._place = located(database_path)
        self._lock = threading.RLock()

    def get(self, key: str, sender: str | None) -> str:
        with self._lock, _shelf(redirected(self._place)) as shelf:
            return shelf.get(ascii([key, sender]), FIRST_STATE)

    def set(self, key: str, sender: str | None, state: str) -> None:
        with self._lock, _shelf(redirected(self._place)) as shelf:
            if state == FIRST_STATE:
                shelf.pop(ascii([key, sender]), None)
            else:
                shelf[ascii([key, sender])] = state

    def clear(self) -> None:
        refuse_to_empty(redirected(self._place))
        with self._lock, _shelf(redirected(self._place)) as shelf:
            shelf.clear()


def _shelf(path: str) -> shelve.Shelf[str]:
    import shelve  # 1 MB, and only the old way needs it

    return shelve.open(path)
