"""Tokens: on all hosts, only the worker that holds a conversation's token handles its messages.

    tokens/3f2/3f2a,n=N                     a free token
    tokens/held/3f2a,n=N:1,LEASE.PID.SEQ    a taken one
    limits/                                 the same once more, for `@concurrency`: a token is one of a limit's slots

There are 65,536 tokens, sixteen in a folder, and the hash of a conversation names its token. A folder is made complete
in `tmp/`, and renamed into place, which the filesystem refuses if it exists: so no token is ever made twice, not even
by a host whose listing overlooked it. Tokens are taken and released as entries are (I3, I4, I10); `token_reclaim`
reclaims those of dead owners.
"""

from __future__ import annotations

import errno
from binascii import crc32
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maildefer.errors import raise_named
from maildefer.maildir import doubt
from maildefer.maildir.claims import QUICK_SECONDS, ClaimSlots
from maildefer.maildir.drafts.folder import make_whole
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import TOKENS, open_folder, token_names
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System


@dataclass(slots=True)
class _HeldToken:
    name: str  # in held/
    place: int  # on the board
    times: int = 1


class Tokens:
    """The tokens of one process; for one thread, and not for a forked child, which is not their owner.

    `slots` publishes the tokens that may be held, for the audit. `lease` returns the lease under which to take tokens,
    in the queue that has them, or None while nothing may be claimed there (I8). `folder` is `tokens` or `limits`.
    """

    def __init__(
        self,
        layout: Layout,
        slots: ClaimSlots,
        *,
        lease: Callable[[], str | None],
        folder: str = "tokens",
        system: System = SYSTEM,
    ) -> None:
        self._layout = layout
        self._folder = folder
        self._path = f"{layout.control}/{folder}"
        self._slots = slots
        self._lease = lease
        self._system = system
        self._pid = 0  # of the process that has taken what is held
        self._held: dict[str, _HeldToken] = {}

    def take_token(self, conversation: str) -> bool:
        """Take the conversation's token, without waiting. Raises StorageFault's kinds; the token is then not held.

        False also if a listing overlooks it, or another conversation of the same hash is being handled: the caller has
        to try again later.
        """
        token = token_of(conversation)
        if token in self._held:  # two conversations of one message
            self._held[token].times += 1
            return True
        return self.take_one_of((token,)) is not None

    def take_one_of(self, tokens: Sequence[str]) -> str | None:
        """Take the first of these tokens that is free; returns which. Raises StorageFault's kinds; none is then held.

        None also where a listing overlooks one that is free: the caller has to try again later.
        """
        if self._lease() is None:
            return None
        try:
            for prefix in dict.fromkeys(token[:-1] for token in tokens):
                free = self._list_free(prefix)
                for token in tokens:
                    if names := free.get(token):
                        lease = self._lease()  # again, since the listing may have taken long (I8)
                        if lease is not None and self._claim(token, names[0], lease):
                            # listed during a rename, and gone; or too many, in an inconsistent copy of the queue
                            if names[1:]:
                                self._remove(prefix, names[1:])
                            return token
        except OSError as fault:
            raise_named(self._path, fault)
        return None

    def holds_token(self, conversation: str) -> bool:
        return token_of(conversation) in self._held

    @staticmethod
    def token_number(conversation: str) -> int:
        """Return the number of the conversation's token, from 1 on."""
        return 1 + int(token_of(conversation), 16)

    def release_token(self, conversation: str) -> None:
        """Release the conversation's token, as `release` does."""
        self.release(token_of(conversation))

    def release(self, token: str) -> None:
        """Release the token; raises nothing. If the rename fails, or its reply is lost, the keeper reclaims it."""
        held = self._held.get(token)
        if held is None or self._system.pid() != self._pid:
            return
        held.times -= 1
        if held.times:
            return
        del self._held[token]
        try:
            self._system.rename(held_path(self._path, held.name), free_path(self._path, held.name))
        except OSError:  # no slot of the scoreboard has the token then, so that the audit reclaims it
            pass
        self._slots.free_place(held.place)

    def _list_free(self, prefix: str) -> dict[str, list[str]]:
        """List the free tokens of a folder freshly: the names of each, newest first; one, if nothing is wrong."""
        folder = f"{self._path}/{prefix}"
        try:
            listed = doubt.fresh_listing(folder, self._system)
        except FileNotFoundError:
            self._make(prefix)
            listed = doubt.fresh_listing(folder, self._system)
        free: dict[str, list[str]] = {}
        for name in listed:
            free.setdefault(name.partition(",")[0], []).append(name)
        for names in free.values():
            names.sort(key=lambda name: EntryName.parse(name).returns, reverse=True)
        return free

    def _claim(self, token: str, name: str, lease: str) -> bool:
        """Claim a token by one rename to a destination of our own, published before it is sent."""
        system = self._system
        seq, self._pid = self._slots.next_seq(), system.pid()
        taken = f"{name}:1,{lease}.{self._pid}.{seq}"
        place = self._slots.take_place(seq, taken)
        began = system.boottime()
        try:
            system.rename(f"{self._path}/{token[:-1]}/{name}", held_path(self._path, taken))
        except OSError as fault:
            if not self._was_taken(fault, began, taken):
                self._slots.free_place(place)
                if fault.errno != errno.ENOENT:
                    raise
                # no process was first: the folder was removed
                make_in(self._layout.path, f".maildefer/{self._folder}/held", system)
                return False
        self._held[token] = _HeldToken(taken, place)
        return True

    def _was_taken(self, fault: OSError, began: float, taken: str) -> bool:
        """Settle a doubtful reply as a claim's: whether a listing shows the unique destination, else False.

        A wrong or early listing is harmless: the audit finds a rename that is executed later.
        """
        quick = self._system.boottime() - began < QUICK_SECONDS
        if fault.errno not in doubt.DOUBTFUL or (fault.errno == errno.ENOENT and quick):
            return False
        try:
            return doubt.is_listed(f"{self._path}/held", taken, self._system)
        except OSError:
            return False

    def _remove(self, prefix: str, names: list[str]) -> None:
        try:
            with open_folder(
                self._layout.path, ".maildefer", self._folder, prefix, system=self._system
            ) as folder:
                folder.remove(names)
        except OSError:
            pass

    def _make(self, prefix: str) -> None:
        system = confined_to(self._layout.path, self._system)
        for below in (self._folder, f"{self._folder}/held"):
            make_in(self._layout.path, f".maildefer/{below}", system)
        files = dict.fromkeys(token_names(prefix), b"")
        make_whole(self._layout, f"{TOKENS}{prefix}-", files, f"{self._path}/{prefix}", system=system)


def token_of(conversation: str) -> str:
    """Return the token of a conversation, which one in 65,536 other conversations shares."""
    # crc32, as hashlib takes 4 MB a process; a sender who makes two of one hash gains no more than by sending from one.
    return f"{crc32(conversation.encode('utf-8', 'surrogateescape')) & 0xFFFF:04x}"


def slots_of(limit: str, count: int) -> list[str]:
    """Return the tokens that are the slots of a limit: `count` in a row, so that one listing shows most of them."""
    first = int(token_of(limit), 16)
    return [f"{(first + number) & 0xFFFF:04x}" for number in range(count)]


def held_path(path: str, taken: str) -> str:
    return f"{path}/held/{taken}"


def free_path(path: str, taken: str) -> str:
    """Return the path that a taken token gets when it is free again, with the next generation's name (I4)."""
    entry = EntryName.parse(taken).returned()
    return f"{path}/{entry.key[:-1]}/{entry.waiting()}"
