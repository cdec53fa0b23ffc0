"""Conversation tokens: whoever holds the token of a conversation is the only one, on all hosts, to handle it.

    tokens/3f2/3f2a,n=N                     a free token
    tokens/held/3f2a,n=N:1,LEASE.PID.SEQ    a taken one

There are 65,536 tokens, sixteen in a folder, and a conversation has the one that its hash names. A folder is made
whole, elsewhere, and renamed into place, which the filesystem refuses where one is: so no token is ever made twice, not
even by a host whose listing overlooked it. They are taken and given back as entries are (I3, I4, I10), and freed by
`freeing` when their owner dies.
"""

from __future__ import annotations

import errno
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass

from maildefer.errors import raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.claims import QUICK_SECONDS, ClaimSlots
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import inside
from maildefer.maildir.rights.folder import TOKENS, Folder, clear_tokens, opened, token_names
from maildefer.maildir.rights.modes import make_in, rights_in
from maildefer.maildir.system import SYSTEM, System


@dataclass(slots=True)
class _HeldToken:
    name: str  # in held/
    place: int  # on the board
    times: int = 1


class Tokens:
    """One process's tokens; of one thread, and of no use in a forked child, which is not the owner.

    `hand` publishes what may be held, for the audit. `lease` gives the lease to take tokens under, in the queue where
    they lie, or None while nothing may be claimed there (I8).
    """

    def __init__(
        self, layout: Layout, hand: ClaimSlots, *, lease: Callable[[], str | None], system: System = SYSTEM
    ) -> None:
        self._layout = layout
        self._slots = hand
        self._lease = lease
        self._system = system
        self._pid = system.pid()
        self._held: dict[str, _HeldToken] = {}

    def take_token(self, conversation: str) -> bool:
        """Take the conversation's token, at once or not at all. Raises StorageFault's kinds; it is then not held.

        False also where a listing overlooks it, or another conversation of the same hash is being handled: to be
        asked again later.
        """
        token = token_of(conversation)
        if token in self._held:  # two conversations of one message
            self._held[token].times += 1
            return True
        if self._lease() is None:
            return False
        try:
            names = self._find(token)
            lease = self._lease()  # once more, since a listing may take long (I8)
            if not names or lease is None or not self._claim(token, names[0], lease):
                return False
        except OSError as fault:
            raise_named(self._layout.tokens, fault)
        if names[1:]:  # listed beside a rename, and gone; in a torn copy of the queue, one too many
            self._remove(token[:-1], names[1:])
        return True

    def holds_token(self, conversation: str) -> bool:
        return token_of(conversation) in self._held

    @staticmethod
    def token_number(conversation: str) -> int:
        """Its token's, from 1 on."""
        return 1 + int(token_of(conversation), 16)

    def release_token(self, conversation: str) -> None:
        """Free it again; raises nothing. If the rename fails, or its reply does, the keeper finds what is left."""
        token = token_of(conversation)
        held = self._held.get(token)
        if held is None or self._system.pid() != self._pid:
            return
        held.times -= 1
        if held.times:
            return
        del self._held[token]
        try:
            self._system.rename(held_path(self._layout, held.name), free_path(self._layout, held.name))
        except OSError:  # the token is on nobody's place of the board then, which is what the audit looks for
            pass
        self._slots.drop(held.place)

    def _find(self, token: str) -> list[str]:
        """The token's free names as a fresh listing shows them, newest first: one or none, if all is well."""
        folder = folder_of(self._layout, token)
        try:
            listed = doubt.fresh_listing(folder, self._system)
        except FileNotFoundError:
            self._make(token[:-1])
            listed = doubt.fresh_listing(folder, self._system)
        names = [name for name in listed if name.partition(",")[0] == token]
        return sorted(names, key=lambda name: EntryName.parse(name).returns, reverse=True)

    def _claim(self, token: str, name: str, lease: str) -> bool:
        """One rename to a destination of our own, published before it is sent."""
        system = self._system
        seq = self._slots.next_seq()
        taken = f"{name}:1,{lease}.{self._pid}.{seq}"
        place = self._slots.take(seq, taken)
        began = system.boottime()
        try:
            system.rename(f"{folder_of(self._layout, token)}/{name}", held_path(self._layout, taken))
        except OSError as fault:
            if not self._was_taken(fault, began, taken):
                self._slots.drop(place)
                if fault.errno != errno.ENOENT:
                    raise
                make_in(  # else nobody was first: it was removed
                    self._layout.path, ".maildefer/tokens/held", system
                )
                return False
        self._held[token] = _HeldToken(taken, place)
        return True

    def _was_taken(self, fault: OSError, began: float, taken: str) -> bool:
        """A doubtful reply, settled as a claim's: by a look for the unique destination, or not at all.

        A look that is wrong or too early is harmless: what lands later, the audit finds.
        """
        quick = self._system.boottime() - began < QUICK_SECONDS
        if fault.errno not in doubt.DOUBTFUL or (fault.errno == errno.ENOENT and quick):
            return False
        try:
            return doubt.listed(f"{self._layout.tokens}/held", taken, self._system)
        except OSError:
            return False

    def _remove(self, prefix: str, names: list[str]) -> None:
        try:
            with opened(self._layout.path, ".maildefer", "tokens", prefix, system=self._system) as folder:
                folder.remove(names)
        except OSError:
            pass

    def _make(self, prefix: str) -> None:
        """A folder of tokens, whole and durable before it can be seen; who loses the race takes the winner's."""
        system = inside(self._layout.path, self._system)
        for below in ("tokens", "tokens/held"):
            make_in(self._layout.path, f".maildefer/{below}", system)
        draft = f"{TOKENS}{prefix}-{system.pid()}-{system.token(8)}"
        with opened(self._layout.path, "tmp", system=system) as tmp:
            tmp.mkdir(draft, rights_in(self._layout.path, system).folder_mode)
            try:
                with tmp.folder(draft) as made:
                    for name in token_names(prefix):
                        system.close(made.open(name, durable.NEW, durable.FILE_MODE))
                    made.sync()
            except OSError:
                self._discard(tmp, draft)
                raise
            try:
                system.rename(f"{self._layout.tmp}/{draft}", f"{self._layout.tokens}/{prefix}")
            except OSError as fault:
                if fault.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    self._discard(tmp, draft)  # one is there for good, so this one can't land later
                elif fault.errno != errno.ENOENT:  # it may have landed, or may yet: it must stay whole
                    raise

    def _discard(self, tmp: Folder, draft: str) -> None:
        try:
            with tmp.folder(draft) as made:
                clear_tokens(made, draft)
            tmp.rmdir(draft)
        except OSError:  # the sweep of `tmp/` does it one day
            pass


def token_of(conversation: str) -> str:
    """The token that a conversation shares with one in 65,536 others."""
    # crc32, as hashlib costs 4 MB a process; who could find two of one hash on purpose could as well send from one.
    return f"{crc32(conversation.encode('utf-8', 'surrogateescape')) & 0xFFFF:04x}"


def folder_of(layout: Layout, token: str) -> str:
    return f"{layout.tokens}/{token[:-1]}"


def held_path(layout: Layout, taken: str) -> str:
    return f"{layout.tokens}/held/{taken}"


def free_path(layout: Layout, taken: str) -> str:
    """Where a taken token goes when it is free again: under the next generation's name (I4)."""
    entry = EntryName.parse(taken).returned()
    return f"{folder_of(layout, entry.key)}/{entry.waiting()}"
