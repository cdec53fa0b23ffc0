"""Whether a message has done something before: one small file, whose name moves on by renames.

    .maildefer/once/3f/3f2a…/1,begun,RANDOM     an attempt has begun it, and not ended; in it: the entry's key, the name
    .maildefer/once/3f/3f2a…/2,done,RANDOM      it is done, for good

The folder, named by the hash of key, bytes and name, is made whole and renamed into place: of all that begin first, one
does. Whoever finds it begun begins it anew, by a rename from the name that was listed. No name comes back (I4), so who
has begun last is the only one that can end it: a fenced owner that goes on finds its name gone. A begin and an end are
on stable storage when they return (I1).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final, Literal

from maildefer.errors import StaleHandle, raise_named
from maildefer.maildir import doubt, durable, scan
from maildefer.maildir.drafts.folder import make_whole
from maildefer.maildir.idempotency.expire import Expirer
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.folder import EFFECT
from maildefer.maildir.rights.modes import make_in
from maildefer.maildir.system import SYSTEM, System

_TRIES: Final = 5
_LOOKS: Final = 50
_NAME: Final = re.compile(r"([0-9]{1,9}),(begun|done),[0-9a-f]+").fullmatch
_durable: Final = set[str]()  # folders of folders that this process has synced


EffectState = Literal["new", "interrupted", "done"]


class Effect:
    """One effect of one message, as one attempt sees it. Both calls raise StorageFault's kinds."""

    def __init__(self, layout: Layout, hashed: str, facts: bytes, *, system: System = SYSTEM) -> None:
        """`facts`: the entry's key, a zero byte, and the effect's name; for the sweep, and for who looks into it."""
        self.path = f"{layout.control}/once/{hashed[:2]}/{hashed}"
        self._layout = layout
        self._bucket = f".maildefer/once/{hashed[:2]}"
        self._facts = facts
        self._system = confined_to(layout.path, system)
        self._begun = ""

    def begin(self) -> EffectState:
        """Begin the effect, unless it is done."""
        try:
            for _ in range(_TRIES):
                found = self._latest()
                if found is None:
                    self._make()
                    if self._latest() == self._begun:
                        return "new"
                elif ",done," in found:
                    durable.sync_directory(self.path, system=self._system)
                    return "done"
                elif self._is_moved(found, "begun"):
                    return "interrupted"
        except OSError as fault:
            raise_named(self.path, fault)
        raise StaleHandle(
            self.path, OSError(errno.ESTALE, "others begin it again and again; or it holds other things")
        )

    def end(self) -> bool:
        """End what this attempt has begun; False if another has begun it since."""
        try:
            return self._is_moved(self._begun, "done")
        except OSError as fault:
            raise_named(self.path, fault)

    def _latest(self) -> str | None:
        """Return the file's name, by a fresh listing; None if there is none."""
        for _ in range(_LOOKS):  # a rename meanwhile may hide the one name of a folder
            try:
                self._system.utime(self.path.rpartition("/")[0])  # an NFS client may have looked in vain
                found = list(filter(_NAME, doubt.fresh_listing(self.path, self._system)))
            except FileNotFoundError:
                return None
            if found:
                return max(found, key=_number)
        return None

    def _make(self) -> None:
        layout, system = self._layout, self._system
        for below in (".maildefer/once", self._bucket):
            make_in(layout.path, below, system)
        if self._bucket not in _durable:  # whoever has made these may have died before that
            for folder in (layout.control, f"{layout.control}/once"):
                durable.sync_directory(folder, system=system)
        self._begun = f"1,begun,{system.token(8)}"
        make_whole(layout, EFFECT, {self._begun: self._facts}, self.path, system=system)
        durable.sync_directory(f"{layout.path}/{self._bucket}", system=system)
        _durable.add(self._bucket)

    def _is_moved(self, before: str, state: str) -> bool:
        """Move the file on; False if it has another name by now."""
        after = f"{_number(before) + 1},{state},{self._system.token(8)}"
        try:
            self._system.rename(f"{self.path}/{before}", f"{self.path}/{after}")
        except OSError as fault:
            if fault.errno not in doubt.DOUBTFUL or self._latest() != after:
                if fault.errno == errno.ENOENT:
                    return False
                raise
        durable.sync_directory(self.path, system=self._system)
        self._begun = after
        return True


class EffectSweeper(Expirer):
    """Removes the records of messages that are in none of the project's queues; one thread only."""

    below, made_as, kept_seconds, most = "once", EFFECT, 31 * 86400.0, 1000

    def __init__(
        self, layout: Layout, queues: Callable[[], Sequence[Layout]], *, system: System = SYSTEM
    ) -> None:
        super().__init__(layout, system=system)
        self._queues = queues
        # At the last pass: what moved meanwhile may have been overlooked.
        self._absent: set[tuple[str, str]] = set()

    def _over(self, old: list[tuple[str, str]]) -> Iterable[tuple[str, str]]:
        keys = {place: key for place in {*old, *self._absent} if (key := self._key_of(*place)) is not None}
        wanted = set(keys.values())
        for queue in dict.fromkeys((self._layout, *self._queues())) if wanted else ():
            self._system.lstat(queue.control)  # else its mount may be away
            for name in unended(queue, self._system):
                wanted.discard(EntryName.parse(name).key)
        absent = {place for place, key in keys.items() if key in wanted}
        over, self._absent = absent & self._absent, absent - self._absent
        return over

    def _key_of(self, bucket: str, name: str) -> str | None:
        path = f"{self._layout.control}/once/{bucket}/{name}"
        with suppress(OSError):  # removed by another host
            for file in filter(_NAME, self._system.listdir(path)):
                facts = durable.read_small(f"{path}/{file}", system=self._system)
                return facts.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return None


def unended(queue: Layout, system: System) -> Iterator[str]:
    """Return the names of all entries that have not ended, in the order in which they move."""
    for folder in (queue.dead_new, queue.dead_cur, queue.cur, queue.later_cur, queue.later_new, queue.new):
        yield from scan.entries(folder, system=system)


def _number(name: str) -> int:
    return int(name.partition(",")[0])
