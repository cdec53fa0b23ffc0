"""A small mapping that processes and hosts share, kept like conversation states: a small file for each key."""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping

from maildefer.handling.handler_marks import FIRST_STATE
from maildefer.handling.state.directory import DirectoryStorage

Pair = tuple[str, str]


class DirectoryMapping(MutableMapping[bytes, Pair]):
    """Maps ASCII keys to pairs of texts, under `path`, which is made at the first write (its parent must be there).

    For any number of threads, processes and hosts; each change is one rename. Of two changes of one key at the same
    time, one counts. Raises the named `StorageFault` if the filesystem refuses.
    """

    def __init__(self, path: str) -> None:
        self._files = DirectoryStorage(path)

    def __getitem__(self, key: bytes) -> Pair:
        text = self._files.get(key.decode("ascii"), None)
        if text == FIRST_STATE:  # the state of a conversation without a file
            raise KeyError(key)
        first, second = json.loads(text)
        return first, second

    def __setitem__(self, key: bytes, pair: Pair) -> None:
        self._files.set(key.decode("ascii"), None, json.dumps(pair))

    def __delitem__(self, key: bytes) -> None:
        self[key]
        self._files.set(key.decode("ascii"), None, FIRST_STATE)

    def __iter__(self) -> Iterator[bytes]:
        return (key.encode("ascii") for key, _ in self._files.conversations())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def clear(self) -> None:
        self._files.clear()
