"""Leases: a supervisor's sign of life in a queue, without clocks and without locks.

A lease is a file `leases/LEASE.BEAT`; its owner renames it to the next beat, and whoever finds one unchanged for the
TTL fences it by renaming the very beat that it saw. Every process that holds claims does so under a lease.
"""

from __future__ import annotations

import errno
import json
import stat
from dataclasses import asdict, dataclass

from maildefer.errors import LeaseFenced, raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import inside
from maildefer.maildir.rights.modes import make_in, rights_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, read_record

STATUS_LIMIT_BYTES = 1 << 22  # of what a lease's keeper tells, of some 10,000 workers


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """Who holds a lease, for observers on the same host: dead there means fenced at once."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_time: int
    keeper_pid: int
    keeper_start_time: int


class Lease:
    """One's own lease in one queue; used by the thread that beats, and no other."""

    def __init__(self, layout: Layout, name: str, beat: int, *, system: System = SYSTEM) -> None:
        self.layout = layout
        self.name = name
        self.beat = beat
        self._system = inside(layout.path, system)
        self._inherited = False  # whether the next beat may be found done by a dead predecessor

    @property
    def path(self) -> str:
        return f"{self.layout.leases}/{self.name}.{self.beat}"

    @classmethod
    def join(cls, layout: Layout, name: str, holder: LeaseHolder, *, system: System = SYSTEM) -> Lease:
        """Write the lease durably, before its first claim. Raises StorageFault's kinds."""
        lease = cls(layout, name, 0, system=system)
        draft = f"{layout.tmp}/.lease-{name}-{system.token(8)}"
        try:
            data, rights = json.dumps(asdict(holder)).encode(), rights_in(layout.path, system)
            durable.replace_file(lease.path, data, draft, rights=rights, system=lease._system)
        except OSError as fault:
            raise_named(layout.leases, fault)
        return lease

    @classmethod
    def take_over(cls, layout: Layout, name: str, holder: LeaseHolder, *, system: System = SYSTEM) -> Lease:
        """Go on with the lease of a keeper that died. Raises LeaseFenced when it is gone, StorageFault's kinds.

        The caller waits a full beat interval before its first beat, since its predecessor may just have beaten.
        """
        try:
            beat = doubt.live_leases(layout, system).get(name)
            if beat is None:
                beat = doubt.live_leases(layout, system).get(name)
            if beat is None:
                raise LeaseFenced(name)
            lease = cls(layout, name, beat, system=system)
            lease._inherited = True
            lease._rewrite(holder)
        except OSError as fault:
            raise_named(layout.leases, fault)
        return lease

    def _rewrite(self, holder: LeaseHolder) -> None:
        """In place: observers that read half of it only do without the same host's short cut.

        Not by a rename, which would bring back a lease that was fenced meanwhile. Raises LeaseFenced where another file
        has taken its place, by whom a file belongs to that we make ourselves: an export may map users.
        """
        system, data = self._system, json.dumps(asdict(holder)).encode()
        path = f"{self.layout.tmp}/.lease-{self.name}-{system.token(8)}"
        draft = durable.begin_file(path, data, rights=rights_in(self.layout.path, system), system=system)
        try:
            owner = system.fstat(draft).st_uid
        finally:
            system.close(draft)
            durable.discard(path, system)
        try:
            descriptor = system.open(self.path, durable.THERE)
        except OSError as fault:
            if fault.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a FIFO, a folder
                raise LeaseFenced(self.name) from fault
            raise
        try:
            durable.must_be_plain(descriptor, self.path, owner, system)
            system.ftruncate(descriptor, 0)
            durable.write_all(descriptor, data, system)
        except PermissionError as fault:
            raise LeaseFenced(self.name) from fault
        finally:
            system.close(descriptor)

    def renew(self) -> bool:
        """Beat once. Raises LeaseFenced when somebody ended the lease, StorageFault's kinds when it is not known.

        A doubtful reply is settled by looking for one's own next beat; neither it nor the old one there: fenced.
        False where the beat so found may be the last request of a keeper that died, carried out late: the lease lives,
        but nobody knows since when, so it is no beat of ours to count from (I8).
        """
        following, certain = f"{self.layout.leases}/{self.name}.{self.beat + 1}", True
        try:
            self._system.rename(self.path, following)
        except OSError as fault:
            if fault.errno not in doubt.DOUBTFUL:
                raise_named(self.path, fault)
            self._settle_by_look(fault)
            certain = not self._inherited
        self.beat += 1
        self._inherited = False
        return certain

    def _settle_by_look(self, fault: OSError) -> None:
        try:
            beat = doubt.live_leases(self.layout, self._system).get(self.name)
            if beat is None:  # a late copy of the request may hide the name from one listing
                beat = doubt.live_leases(self.layout, self._system).get(self.name)
        except OSError as worse:
            raise_named(self.layout.leases, worse)
        if beat is None:
            raise LeaseFenced(self.name) from fault
        if beat <= self.beat:
            raise_named(
                self.path,
                fault if fault.errno != errno.ENOENT else OSError(errno.EIO, "no such beat, yet listed"),
            )
        self.beat = beat - 1

    def leave(self) -> None:
        """Remove the lease; the last act, after the last claim is settled. Gone already is as well."""
        try:
            self._system.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise_named(self.path, fault)


def read_holder(layout: Layout, lease: str, beat: int, *, system: System = SYSTEM) -> LeaseHolder | None:
    """Who holds a lease; None when the file can't be read, which only means that no short cut is taken."""
    try:
        found = read_record(f"{layout.leases}/{lease}.{beat}", files=system)
        holder = LeaseHolder(**found)  # type: ignore[arg-type]  # which the next lines are about
    except (OSError, UntrustedRecord, TypeError):
        return None
    words = (holder.host, holder.boot_id, holder.pid_namespace)
    numbers = (holder.pid, holder.start_time, holder.keeper_pid, holder.keeper_start_time)
    is_ours = all(isinstance(one, str) for one in words) and all(isinstance(one, int) for one in numbers)
    return holder if is_ours else None


def is_folder(layout: Layout, lease: str, beat: int, *, system: System = SYSTEM) -> bool:
    """Whether what has the name of this lease is a folder, and so somebody else's."""
    try:
        return stat.S_ISDIR(system.lstat(f"{layout.leases}/{lease}.{beat}").st_mode)
    except OSError:  # it has beaten meanwhile, or ended
        return False


def fence(layout: Layout, lease: str, beat: int, *, system: System = SYSTEM) -> bool:
    """End a lease by moving the very beat that was seen; False when it has beaten since, or somebody else did it.

    Raises OSError, IsADirectoryError for a folder that has a lease's name.
    """
    system = inside(layout.path, system)
    seen, ended = f"{layout.leases}/{lease}.{beat}", f"{layout.fenced}/{lease}.{beat}"
    if is_folder(layout, lease, beat, system=system):
        raise IsADirectoryError(errno.EISDIR, "is a folder, so no lease: remove it", seen)
    try:
        system.rename(seen, ended)
    except FileNotFoundError:
        if not make_in(layout.path, ".maildefer/fenced", system):
            return False  # the ordinary case: somebody else fenced it, or it has beaten
        try:
            system.rename(seen, ended)
        except FileNotFoundError:  # the same, while we made the folder
            return False
    _take_status_along(layout, lease, system)
    return True


def _take_status_along(layout: Layout, lease: str, system: System) -> None:
    """What it told of itself is over, and is kept beside it for whoever asks; else the sweep takes it away."""
    try:
        system.rename(f"{layout.status}/{lease}.json", f"{layout.fenced}/{lease}.json")
    except OSError:
        pass
