"""Leases: files by which a supervisor shows in a queue that it lives, without clocks and without locks.

A lease is a file `leases/LEASE.BEAT`; its owner renames it to the next beat, and an observer that finds it unchanged
for the TTL fences it by renaming exactly the beat that it saw. Every process holds its claims under a lease.
"""

from __future__ import annotations

import errno
import json
import math
import stat
from dataclasses import asdict, dataclass

from maildefer.errors import LeaseFenced, raise_named
from maildefer.maildir import doubt, durable
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights.confined import confined_to
from maildefer.maildir.rights.modes import make_in, rights_in
from maildefer.maildir.system import SYSTEM, System
from maildefer.untrusted import UntrustedRecord, read_record

STATUS_LIMIT_BYTES = 1 << 22  # of the status file of a lease, enough for some 10,000 workers


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """The processes that hold a lease, for observers on the same host, which fence it at once if these are dead."""

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_time: int
    keeper_pid: int
    keeper_start_time: int


class Lease:
    """The lease of this pool in one queue; used only by the thread that beats."""

    def __init__(self, layout: Layout, name: str, beat: int, *, system: System = SYSTEM) -> None:
        self.layout = layout
        self.name = name
        self.beat = beat
        self._system = confined_to(layout.path, system)
        self._inherited = False  # whether a dead predecessor may have made the next beat

    @property
    def path(self) -> str:
        return f"{self.layout.leases}/{self.name}.{self.beat}"

    @classmethod
    def join(cls, layout: Layout, name: str, holder: LeaseHolder, *, system: System = SYSTEM) -> Lease:
        """Write the lease durably; it must be written before the first claim under it. Raises StorageFault's kinds."""
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
        """Continue the lease of a keeper that died. Raises LeaseFenced if it is gone, and StorageFault's kinds.

        The caller waits a full beat interval before its first beat, since its predecessor may have beaten just before.
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
        """Rewrite the lease's file in place: an observer that reads half of it only can't fence it at once.

        A rename instead would bring back a lease that was fenced meanwhile. Raises LeaseFenced if another file has its
        name; the owner is compared with that of a file that we make, since an NFS export may map users.
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
        """Beat once. Raises LeaseFenced if the lease was fenced, and StorageFault's kinds if that is not known.

        A doubtful reply is settled by a listing: if it has neither the next beat nor the old one, the lease was fenced.
        Returns False if the next beat may be the last request of a keeper that died, executed late: the lease lives,
        but since when is not known, so the time of this beat must not be counted from (I8).
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
        """Remove the lease, after the last claim is settled; it may be gone already."""
        try:
            self._system.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as fault:
            raise_named(self.path, fault)


def read_holder(layout: Layout, lease: str, beat: int, *, system: System = SYSTEM) -> LeaseHolder | None:
    """Read who holds a lease; None if the file can't be read: the lease is then fenced only after the TTL."""
    try:
        found = read_record(f"{layout.leases}/{lease}.{beat}", files=system)
        holder = LeaseHolder(**found)  # type: ignore[arg-type]  # the next lines check the types
    except (OSError, UntrustedRecord, TypeError):
        return None
    words = (holder.host, holder.boot_id, holder.pid_namespace)
    numbers = (holder.pid, holder.start_time, holder.keeper_pid, holder.keeper_start_time)
    is_ours = all(isinstance(one, str) for one in words) and all(isinstance(one, int) for one in numbers)
    return holder if is_ours else None


def is_folder(layout: Layout, lease: str, beat: int, *, system: System = SYSTEM) -> bool:
    """Whether a folder has the name of this lease, which maildefer never makes."""
    try:
        return stat.S_ISDIR(system.lstat(f"{layout.leases}/{lease}.{beat}").st_mode)
    except OSError:  # it has beaten meanwhile, or ended
        return False


def fence(
    layout: Layout, lease: str, beat: int, *, latest: float = math.inf, system: System = SYSTEM
) -> bool:
    """Fence a lease by moving exactly the beat that was seen; False if it has beaten since, or was fenced by another.

    It is not sent after `latest`, by the boot clock, but False returned: where the server was away meanwhile, the owner
    has been silent for that. Raises OSError, IsADirectoryError for a folder that has a lease's name.
    """
    system = confined_to(layout.path, system)
    seen, ended = f"{layout.leases}/{lease}.{beat}", f"{layout.fenced}/{lease}.{beat}"
    if is_folder(layout, lease, beat, system=system):
        raise IsADirectoryError(errno.EISDIR, "is a folder, so no lease: remove it", seen)
    if system.boottime() > latest:
        return False
    try:
        system.rename(seen, ended)
    except FileNotFoundError:
        if not make_in(layout.path, ".maildefer/fenced", system):
            return False  # the ordinary case: another host fenced it, or it has beaten
        try:
            system.rename(seen, ended)
        except FileNotFoundError:  # the same happened while we made the folder
            return False
    _take_status_along(layout, lease, system)
    return True


def _take_status_along(layout: Layout, lease: str, system: System) -> None:
    """Move the status file beside the fenced lease, so that it can be read later; if this fails, a sweep removes it."""
    try:
        system.rename(f"{layout.status}/{lease}.json", f"{layout.fenced}/{lease}.json")
    except OSError:
        pass
