"""One process's filesystem and clock: the real code's `System`, with all that a client does to a request.

A rename or unlink may be refused, delayed, sent again because its reply was lost, copied, or answered by a fault that
says nothing; a listing may be this host's stale one, or torn, so that an entry that is renamed meanwhile shows zero,
one or two times; a name that was looked up in vain stays missing for a while; a folder that another has replaced is
known by the handle of the one before. One's own change to a directory drops what the host has cached of it.
"""

from __future__ import annotations

import errno
import os
from math import log
from typing import Any

from greenlet import GreenletExit

from tests.simulation.cache import Cache, facts_of, torn
from tests.simulation.scheduler import Process
from tests.simulation.server import Directory, File, refusal
from tests.simulation.world import LATEST_COPY_SECONDS, LONGEST_RETRY_SECONDS, START, Request, World, short
from tests.support.scandir_model import Listing

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
_DOUBTS = (errno.EIO, errno.ESTALE, errno.EINTR)


class Client:
    """The calls of one process."""

    def __init__(self, world: World, process: Process, cache: Cache) -> None:
        self.world = world
        self.process = process
        self.cache = cache
        self._opened: dict[int, list[Any]] = {}  # descriptor: node, path, position
        self._descriptor = 2
        self._scheduler = world.scheduler
        self._random = world.scheduler.random.random

    @property
    def system(self) -> Any:
        """Itself: its methods have the names of a `System`'s functions."""
        return self

    # Clocks and chance

    def time(self) -> float:
        return START + self._scheduler.now + self.cache.skew

    def boottime(self) -> float:
        cache = self.cache
        return cache.uptime + self._scheduler.now * cache.drift

    def sleep(self, seconds: float) -> None:
        self._must_live()
        self._scheduler.sleep(seconds / self.cache.drift)

    def token(self, size_bytes: int) -> str:
        return f"{self.world.scheduler.random.getrandbits(8 * size_bytes):0{2 * size_bytes}x}"

    def pid(self) -> int:
        return self.process.pid

    posix_fadvise = staticmethod(os.posix_fadvise)

    def _must_live(self) -> None:
        if not self.process.alive:  # its `finally` clauses run, and have no effect
            raise GreenletExit

    # The way to the server and back

    def _send_over_network(self, *, changes: bool) -> None:
        """To the server, which may be away; after a restart it lists for a while, but does not rename."""
        if not self.process.alive:
            raise GreenletExit
        world, random, scheduler, cache = self.world, self._random, self._scheduler, self.cache
        fault_rates = world.fault_rates
        latency = -log(1.0 - random()) * fault_rates.latency
        if fault_rates.slow and random() < fault_rates.slow:
            latency += random() * LONGEST_RETRY_SECONDS
        scheduler.sleep(latency if latency < LONGEST_RETRY_SECONDS else LONGEST_RETRY_SECONDS)
        while True:
            until = world.grace_until if changes else world.down_until
            if until < cache.partitioned_until:
                until = cache.partitioned_until
            if until <= scheduler.now:
                return
            scheduler.sleep(until - scheduler.now + random() * LONGEST_RETRY_SECONDS)

    def _refuse(self, path: str) -> None:
        refused = self.world.fault_rates.refused
        if refused and self._random() < refused:
            self._send_over_network(changes=True)
            code = self.world.scheduler.random.choice(_REFUSALS)
            self.world.note(self.process.name, f"{os.path.basename(path)} refused: {errno.errorcode[code]}")
            raise refusal(code, path)

    def _change(self, what: str, source: str, destination: str = "") -> None:
        """A rename or unlink, with all that may happen to it."""
        self._must_live()
        world, random, fault_rates = self.world, self._random, self.world.fault_rates
        if self._is_missing(source) or (destination and self._is_missing(destination.rpartition("/")[0])):
            raise refusal(errno.ENOENT, source)
        self._refuse(source)
        if destination and not fault_rates.local and world.server.look(destination) is None:
            self._note_missing(destination)
        request = Request(what, source, destination, self.process, world.scheduler.now)
        if world.watcher is not None:
            world.watcher.sends(request)
        if fault_rates.copied and random() < fault_rates.copied:
            world.carry_out_late(request, random() * LATEST_COPY_SECONDS)
        if fault_rates.doubtful and random() < fault_rates.doubtful / 2:
            self._send_over_network(changes=True)
            world.carry_out_late(request, random() * LATEST_COPY_SECONDS)
            raise refusal(world.scheduler.random.choice(_DOUBTS), source)
        boots = -1
        while boots != world.boots:
            self._send(request)
            boots = world.boots
            fault: OSError | None = None
            try:
                self._must_be_current(source, destination)
                world.carry_out(request)
            except OSError as refused:
                fault = refused
            if random() < 0.3:  # else the reply is as quick as can be
                self._send_over_network(changes=False)
            if fault_rates.lost and random() < fault_rates.lost:
                world.note(self.process.name, "has no reply, sends it again")
                world.scheduler.sleep(0.1 + random() * (LONGEST_RETRY_SECONDS - 0.1))
                boots = -1
        if fault is not None:
            try:
                raise fault
            finally:
                del fault  # else it and this frame keep each other
        cache = self.cache
        cache.changed(source.rpartition("/")[0])
        if destination:
            cache.changed(destination.rpartition("/")[0])
            cache.arrived(destination)
        if fault_rates.doubtful and random() < fault_rates.doubtful / 2:
            raise refusal(world.scheduler.random.choice(_DOUBTS), source)

    def _send(self, request: Request) -> None:
        """On its way a request outlives its sender: it may be carried out seconds after that has died."""
        thread = self.world.scheduler.thread
        assert thread is not None
        thread.sending = request
        if (doom := self.cache.next_request) is not None:
            self.cache.next_request = None
            self.world.later(self._random() * self.world.fault_rates.latency, doom)
        self._send_over_network(changes=True)
        thread.sending = None

    # Names

    def _at(self, path: str, folder: int | None) -> str:
        """By a folder's descriptor, which is of the path by which it was opened; unless another is there by now."""
        if folder is None:
            return path
        node, opened_at, _ = self._opened[folder]
        if self.world.server.directories.get(opened_at, node) is not node:
            raise refusal(self.world.scheduler.random.choice((errno.ENOENT, errno.ESTALE)), path)
        return f"{opened_at}/{path}"

    def _must_be_current(self, *paths: str) -> None:
        """Raise ENOENT where this host knows a folder of entries by a handle of one that was replaced, at times.

        The client is told ESTALE for it, and looks the path up again, unless the server has not forgotten it yet.
        """
        for path in paths:
            folder = path.rpartition("/")[0]
            if folder.endswith("/new") and (there := self.world.server.directories.get(folder)) is not None:
                known = self.cache.handles.get(folder, there)
                self.cache.handles[folder] = there
                if known is not there and self._random() < 0.5:
                    self.world.note(self.process.name, f"knows another folder than {short(folder)}")
                    raise refusal(errno.ENOENT, path)

    def rename(
        self, source: str, destination: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self._change("rename", self._at(source, src_dir_fd), self._at(destination, dst_dir_fd))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self._change("unlink", self._at(path, dir_fd))

    def mkdir(self, path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        self._send_over_network(changes=True)
        self.world.server.mkdir(path, self.world.mount_time)
        self.cache.changed(path.rpartition("/")[0])

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        path = self._at(path, dir_fd)
        self._send_over_network(changes=True)
        self.world.server.rmdir(path, self.world.mount_time)
        self.cache.changed(path.rpartition("/")[0])

    def utime(self, folder: str | int) -> None:
        path = folder if isinstance(folder, str) else self._opened[folder][1]
        world = self.world
        if isinstance(folder, str):
            self._must_be_there(path)
        self._refuse(path)
        self._send_over_network(changes=True)
        if world.fault_rates.untouchable and world.chance(world.fault_rates.untouchable):
            raise refusal(world.scheduler.random.choice(_REFUSALS), path)
        node: Any = world.server.look(path) or world.server.directory(path)
        if not isinstance(folder, str):
            node = self._opened[folder][0]
        node.mtime = START + self._scheduler.now
        self.cache.changed(path)

    def listdir(self, folder: str | int) -> list[str]:
        path = folder if isinstance(folder, str) else self._opened[folder][1]
        world = self.world
        if not self.process.alive:
            raise GreenletExit
        if isinstance(folder, str):
            self._must_be_there(path)
        fault_rates = world.fault_rates
        if fault_rates.stale and path in self.cache.listings and self._random() < fault_rates.stale:
            return list(self.cache.listings[path])
        if fault_rates.refused:
            self._refuse(path)
        self._send_over_network(changes=False)
        listed = world.server.directory(path)
        names = list(listed.names)
        if fault_rates.torn and self._random() < fault_rates.torn:
            self._send_over_network(changes=False)
            if fault_rates.gap:
                world.scheduler.sleep(self._random() * fault_rates.gap)
            if world.server.directory(path) is listed:  # else a rename has put another folder in its place
                names = torn(names, listed.names, self._random)
        if not fault_rates.local:
            self.cache.listings[path] = names[:]
        return names

    def scandir(self, path: str | int) -> Listing:
        return Listing(self.listdir(path))

    # Files

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        world, path = self.world, self._at(path, dir_fd)
        creates = bool(flags & os.O_CREAT)
        if not creates and self._is_missing(path):
            raise refusal(errno.ENOENT, path)
        if flags & os.O_DIRECTORY:  # a step on a path, which calls by path take as well
            self._must_live()
        else:
            self._refuse(path)
            self._send_over_network(changes=creates)
        if creates:
            node: Any = world.server.create(path, world.mount_time, exclusive=bool(flags & os.O_EXCL))
            self.cache.changed(path.rpartition("/")[0])
        else:
            node = world.server.directories.get(path) or world.server.look(path)
            if node is None:
                self._note_missing(path)
                raise refusal(errno.ENOENT, path)
        self._descriptor += 1
        self._opened[self._descriptor] = [node, path, 0]
        return self._descriptor

    def read(self, descriptor: int, size_bytes: int) -> bytes:
        opened = self._opened[descriptor]
        node, _, start = opened
        self._must_live()
        if isinstance(node, Directory):
            raise refusal(errno.EISDIR, opened[1])
        data: bytes = node.data[start : start + size_bytes]
        opened[2] += len(data)
        return data

    def write(self, descriptor: int, data: bytes) -> int:
        node, path, _ = self._opened[descriptor]
        self._must_live()
        self._refuse(path)
        if self.world.chance(self.world.fault_rates.refused) and len(data) > 1:
            data = data[: len(data) // 2]
        self.world.server.write(node, data, self.world.mount_time)
        return len(data)

    def ftruncate(self, descriptor: int, size_bytes: int) -> None:
        self._opened[descriptor][0].data = self._opened[descriptor][0].data[:size_bytes]

    def commit(self, descriptor: int) -> bool:
        return False

    def fsync(self, descriptor: int) -> None:
        node, path, _ = self._opened[descriptor]
        self._refuse(path)
        self._send_over_network(changes=True)
        if isinstance(node, File):
            self.world.server.sync_file(node)
        else:
            self.world.server.sync_directory(path)
            if self.world.watcher is not None:
                self.world.watcher.synced(path)

    def close(self, descriptor: int) -> None:
        self._must_live()
        del self._opened[descriptor]

    def fstat(self, descriptor: int) -> os.stat_result:
        node, path, _ = self._opened[descriptor]
        self._send_over_network(changes=False)
        is_gone = isinstance(node, File) and node.links == 0 and not self.world.fault_rates.local
        if is_gone and self.world.chance(0.5):
            raise refusal(errno.ESTALE, path)
        return facts_of(node)

    def lstat(self, path: str, *, dir_fd: int | None = None) -> os.stat_result:
        path = self._at(path, dir_fd)
        if path.endswith("/."):  # a queue's own folder: a step on a path
            self._must_live()
            is_shared = self.world.fault_rates.shared and path == "/q/."
            return facts_of(self.world.server.directory(path[:-2]), 0o3710 if is_shared else 0o2770)
        if self._is_missing(path):
            raise refusal(errno.ENOENT, path)
        self._send_over_network(changes=False)
        node = self.world.server.directories.get(path) or self.world.server.look(path)
        if node is None:
            self._note_missing(path)
            raise refusal(errno.ENOENT, path)
        return facts_of(node)

    # Names that were looked up in vain

    def _note_missing(self, path: str) -> None:
        if not self.world.fault_rates.local:
            self.cache.note_missing(path, self.world.now)

    def _is_missing(self, path: str) -> bool:
        """Whether the name, or that of its folder, was looked up in vain."""
        if not self.cache.missing:
            return False
        return any(self.cache.is_missing(one, self.world.now) for one in (path, path.rpartition("/")[0]))

    def _must_be_there(self, folder: str) -> None:
        """Raise ENOENT for a folder that is looked up in vain, or was before."""
        if self.world.server.directories.get(folder) is None:
            self._note_missing(folder)
        if self._is_missing(folder):
            raise refusal(errno.ENOENT, folder)
