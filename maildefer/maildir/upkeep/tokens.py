"""Conversation tokens: on all hosts, only the worker that holds a conversation's token handles its messages.

    tokens/3f2/3f2a,n=N                     a free token
    tokens/held/3f2a,n=N:1,LEASE.PID.SEQ    a taken one

There are 65,536 tokens, sixteen in a folder, and the hash of a conversation names its token. A folder is made complete
in `tmp/`, and renamed into place, which the filesystem refuses if it exists: so no token is ever made twice, not even
by a host whose listing overlooked it. Tokens are taken and released as entries are (I3, I4, I10); `token_reclaim`
reclaims those of dead owners.
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
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import TOKENS, Folder, clear_tokens, open_folder, token_names
from maildefer.maildir.rights.modes import make_in, rights_in
from maildefer.maildir.system import SYSTEM, System


@dataclass(slots=True)
class _HeldToken:
    name: str  # in held/
    place: int  # on the board
    times: int = 1


class Tokens:
    """The tokens of one process; for one thread, and not for a forked child, which is not their owner.

    `slots` publishes the tokens that may be held, for the audit. `lease` returns the lease under which to take tokens,
    in the queue that has them, or None while nothing may be claimed there (I8).
    """

    def __init__(
        self, layout: Layout, slots: ClaimSlots, *, lease: Callable[[], str | None], system: System = SYSTEM
    ) -> None:
        self._layout = layout
        self._slots = slots
        self._lease = lease
        self._system = system
        self._pid = system.pid()
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
        if self._lease() is None:
            return False
        try:
            names = self._find(token)
            lease = self._lease()  # again, since the listing may have taken long (I8)
            if not names or lease is None or not self._claim(token, names[0], lease):
                return False
        except OSError as fault:
            raise_named(self._layout.tokens, fault)
        if names[
            1:
        ]:  # listed during a rename, and gone; or one too many, in an inconsistent copy of the queue
            self._remove(token[:-1], names[1:])
        return True

    def holds_token(self, conversation: str) -> bool:
        return token_of(conversation) in self._held

    @staticmethod
    def token_number(conversation: str) -> int:
        """Return the number of the conversation's token, from 1 on."""
        return 1 + int(token_of(conversation), 16)

    def release_token(self, conversation: str) -> None:
        """Release the token; raises nothing. If the rename fails, or its reply is lost, the keeper reclaims it."""
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
        except OSError:  # no slot of the scoreboard has the token then, so that the audit reclaims it
            pass
        self._slots.free_place(held.place)

    def _find(self, token: str) -> list[str]:
        """List the free names of the token freshly, newest first: one or none, if nothing is wrong."""
        folder = folder_of(self._layout, token)
        try:
            listed = doubt.fresh_listing(folder, self._system)
        except FileNotFoundError:
            self._make(token[:-1])
            listed = doubt.fresh_listing(folder, self._system)
        names = [name for name in listed if name.partition(",")[0] == token]
        return sorted(names, key=lambda name: EntryName.parse(name).returns, reverse=True)

    def _claim(self, token: str, name: str, lease: str) -> bool:
        """Claim a token by one rename to a destination of our own, published before it is sent."""
        system = self._system
        seq = self._slots.next_seq()
        taken = f"{name}:1,{lease}.{self._pid}.{seq}"
        place = self._slots.take_place(seq, taken)
        began = system.boottime()
        try:
            system.rename(f"{folder_of(self._layout, token)}/{name}", held_path(self._layout, taken))
        except OSError as fault:
            if not self._was_taken(fault, began, taken):
                self._slots.free_place(place)
                if fault.errno != errno.ENOENT:
                    raise
                make_in(  # no process was first: the folder was removed
                    self._layout.path, ".maildefer/tokens/held", system
                )
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
            return doubt.is_listed(f"{self._layout.tokens}/held", taken, self._system)
        except OSError:
            return False

    def _remove(self, prefix: str, names: list[str]) -> None:
        try:
            with open_folder(
                self._layout.path, ".maildefer", "tokens", prefix, system=self._system
            ) as folder:
                folder.remove(names)
        except OSError:
            pass

    def _make(self, prefix: str) -> None:
        """Make a folder of tokens, complete and durable before it is visible; the loser of a race uses the winner's."""
        system = confined_to(self._layout.path, self._system)
        for below in ("tokens", "tokens/held"):
            make_in(self._layout.path, f".maildefer/{below}", system)
        draft = f"{TOKENS}{prefix}-{system.pid()}-{system.token(8)}"
        with open_folder(self._layout.path, "tmp", system=system) as tmp:
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
                    self._discard(tmp, draft)  # one exists for good, so this rename can't succeed later
                elif (
                    fault.errno != errno.ENOENT
                ):  # it may have succeeded, or may yet: the draft must stay complete
                    raise

    def _discard(self, tmp: Folder, draft: str) -> None:
        try:
            with tmp.folder(draft) as made:
                clear_tokens(made, draft)
            tmp.rmdir(draft)
        except OSError:  # the sweep of `tmp/` removes it later
            pass


def token_of(conversation: str) -> str:
    """Return the token of a conversation, which one in 65,536 other conversations shares."""
    # crc32, as hashlib takes 4 MB a process; a sender who makes two of one hash gains no more than by sending from one.
    return f"{crc32(conversation.encode('utf-8', 'surrogateescape')) & 0xFFFF:04x}"


def folder_of(layout: Layout, token: str) -> str:
    return f"{layout.tokens}/{token[:-1]}"


def held_path(layout: Layout, taken: str) -> str:
    return f"{layout.tokens}/held/{taken}"


def free_path(layout: Layout, taken: str) -> str:
    """Return the path that a taken token gets when it is free again, with the next generation's name (I4)."""
    entry = EntryName.parse(taken).returned()
    return f"{folder_of(layout, entry.key)}/{entry.waiting()}"
