"""The interface of state stores, and the stores for one process.

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
        """The name of the state; `START` for a pair that was never set."""
        raise NotImplementedError

    def set(self, key: str, sender: str | None, state: str) -> None:
        """Set the state of a module and a sender."""
        raise NotImplementedError

    def clear(self) -> None:
        """Delete all states; for tests and operators."""
        raise NotImplementedError


class EntryStorage(StateStorage):
    """A store that knows which entry set a state, so that a retry of that entry starts from the state before.

    Without it, the retry of a message whose handler had set the next state, and that was not settled (a crash before
    the ack, another handler's exception), would start from that next state, and never run the same handler again.
    """

    def end_attempt(self, entry: str) -> None:
        """End the attempt at `entry`. Until then it reads the state that it has set; its retry reads the one before."""
        raise NotImplementedError

    def get_for_entry(self, key: str, sender: str | None, entry: str) -> str:
        """The state from which `entry` starts."""
        raise NotImplementedError

    def set_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        """Set the state on account of `entry`, and keep the state from which it started."""
        raise NotImplementedError

    def begin_for_entry(self, key: str, sender: str | None, state: str, entry: str) -> None:
        """Set the state from which `entry` starts (a handoff to a state function)."""
        raise NotImplementedError


class MemoryStorage(StateStorage):
    """States in a dictionary; for tests, and for an application without conversations. Safe among threads."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def get(self, key: str, sender: str | None) -> str:
        return self.states.get(repr([key, sender]), FIRST_STATE)

    def set(self, key: str, sender: str | None, state: str) -> None:
        if state == FIRST_STATE:  # the default needs no record
            self.states.pop(repr([key, sender]), None)
        else:
            self.states[repr([key, sender])] = state

    def clear(self) -> None:
        self.states.clear()


class ShelveStorage(StateStorage):
    """States in a shelf, a file that is opened for each call.

    For one process only, since a shelf has no lock among processes. Keys are written in ASCII, which every dbm takes.
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
    import shelve  # 1 MB, which only this store needs

    return shelve.open(path)
