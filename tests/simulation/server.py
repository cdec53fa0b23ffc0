"""A filesystem in memory: directories, files with links and times, and a journal for power cuts."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Literal

FAR = "/far/"  # what lies below is another filesystem
Operation = Literal["create", "rename", "unlink"]


@dataclass(slots=True, eq=False)
class File:
    number: int
    data: bytes = b""
    synced: bytes = b""
    mtime: float = 0.0
    links: int = 1


@dataclass(slots=True, eq=False)
class Directory:
    number: int
    names: dict[str, File | Directory] = field(default_factory=dict)
    mtime: float = 0.0


Node = File | Directory


@dataclass(slots=True)
class Record:
    """One change of names, as the journal has it."""

    what: Operation
    source: str
    destination: str
    node: File
    durable: bool = False


def refusal(code: int, path: str) -> OSError:
    return OSError(code, os.strerror(code), path)


# Each directory's names: the bytes of a file, None for another directory.
Tree = dict[str, dict[str, bytes | None]]


class Server:
    """Each method is one request, carried out at once and as a whole."""

    def __init__(self, tree: Tree | None = None) -> None:
        self._numbers = 0
        self.journal: list[Record] | None = None  # since the last cut; None where no power can be cut
        self._base: dict[str, dict[str, Node]] = {}
        self.directories: dict[str, Directory] = {}
        if tree is None:
            self.directories["/"] = self._new_directory()
        else:
            self._plant(tree)

    def tree(self) -> Tree:
        """What is there now, to begin another server with."""
        return {
            path: {name: node.data if isinstance(node, File) else None for name, node in folder.names.items()}
            for path, folder in self.directories.items()
        }

    def _plant(self, tree: Tree) -> None:
        self.directories.update({path: self._new_directory() for path in tree})
        for path, names in tree.items():
            folder = self.directories[path].names
            for name, data in names.items():
                place = f"{path.rstrip('/')}/{name}"
                folder[name] = self.directories[place] if data is None else self._new_file(data)

    def _new_file(self, data: bytes, now: float = 0.0) -> File:
        self._numbers += 1
        return File(self._numbers, data, data, now)

    def _new_directory(self) -> Directory:
        self._numbers += 1
        return Directory(self._numbers)

    def directory(self, path: str) -> Directory:
        if (found := self.directories.get(path)) is None:
            raise refusal(errno.ENOENT if self.look(path) is None else errno.ENOTDIR, path)
        return found

    def look(self, path: str) -> Node | None:
        parent, _, name = path.rpartition("/")
        folder = self.directories.get(parent or "/")
        return None if folder is None else folder.names.get(name)

    def _parent(self, path: str) -> tuple[Directory, str]:
        parent, _, name = path.rpartition("/")
        return self.directories.get(parent) or self.directory(parent or "/"), name

    # Requests

    def rename(self, source: str, destination: str, now: float) -> Node:
        if source.startswith(FAR) != destination.startswith(FAR):
            raise refusal(errno.EXDEV, destination)
        folder, name = self._parent(source)
        if (node := folder.names.get(name)) is None:
            raise refusal(errno.ENOENT, source)
        other, new_name = self._parent(destination)
        there = other.names.get(new_name)
        if there is node:
            return node
        if isinstance(node, File):
            if isinstance(there, Directory):
                raise refusal(errno.EISDIR, destination)
            if there is not None:
                there.links -= 1
            self._note("rename", source, destination, node)
        else:
            if isinstance(there, File):
                raise refusal(errno.ENOTDIR, destination)
            if there is not None and there.names:
                raise refusal(errno.ENOTEMPTY, destination)
            self._move_directory(source, destination)
        del folder.names[name]
        other.names[new_name] = node
        folder.mtime = other.mtime = now
        return node

    def _move_directory(self, source: str, destination: str) -> None:
        for path in [path for path in self.directories if path == source or path.startswith(f"{source}/")]:
            self.directories[destination + path[len(source) :]] = self.directories.pop(path)

    def unlink(self, path: str, now: float) -> File:
        folder, name = self._parent(path)
        node = folder.names.get(name)
        if node is None:
            raise refusal(errno.ENOENT, path)
        if not isinstance(node, File):
            raise refusal(errno.EISDIR, path)
        del folder.names[name]
        node.links -= 1
        folder.mtime = now
        self._note("unlink", path, "", node)
        return node

    def create(self, path: str, now: float, *, exclusive: bool) -> File:
        folder, name = self._parent(path)
        there = folder.names.get(name)
        if there is not None:
            if exclusive:
                raise refusal(errno.EEXIST, path)
            if not isinstance(there, File):
                raise refusal(errno.EISDIR, path)
            return there
        made = folder.names[name] = self._new_file(b"", now)
        folder.mtime = now
        self._note("create", path, path, made)
        return made

    def mkdir(self, path: str, now: float) -> None:
        folder, name = self._parent(path)
        if name in folder.names:
            raise refusal(errno.EEXIST, path)
        folder.names[name] = self.directories[path] = self._new_directory()
        folder.mtime = now

    def rmdir(self, path: str, now: float) -> None:
        folder, name = self._parent(path)
        if self.directory(path).names:
            raise refusal(errno.ENOTEMPTY, path)
        del folder.names[name], self.directories[path]
        folder.mtime = now

    def write(self, file: File, data: bytes, now: float) -> None:
        file.data += data
        file.mtime = now

    # Power

    def _note(self, what: Operation, source: str, destination: str, node: File) -> None:
        if self.journal is not None:
            self.journal.append(Record(what, source, destination, node))

    def can_lose_power(self) -> None:
        """From now on: what is there now is on the disk."""
        self.journal = []
        self._base = {path: dict(folder.names) for path, folder in self.directories.items()}
        for file in self._files():
            file.synced = file.data

    def sync_directory(self, path: str) -> None:
        """Its changes of now are on the disk, and all that the same files went through before."""
        if self.journal is None:
            return
        touched = set()
        for record in reversed(self.journal):
            if path in (record.source.rpartition("/")[0], record.destination.rpartition("/")[0]):
                touched.add(record.node)
            record.durable = record.durable or record.node in touched

    def cut_power(self, random: Random, *, ordered: bool) -> None:
        """What was not synced is gone: of the names the last ones (a journal), or any; of the bytes any tail."""
        assert self.journal is not None
        records, last = self.journal, -1
        for index, record in enumerate(records):
            last = index if record.durable else last
        kept = random.randint(last + 1, len(records)) if ordered else 0
        for path, folder in self.directories.items():
            folder.names = dict(self._base.get(path, folder.names))
        for index, record in enumerate(records):
            if record.durable or (index < kept if ordered else random.random() < 0.5):
                self._replay(record)
        for file in self._files():
            file.links = 1
            unsynced = len(file.data) - len(file.synced)
            if unsynced < 0:  # written anew in place: the old bytes or the new ones
                file.data = random.choice((file.synced, file.data))
                continue
            file.data = file.synced + file.data[len(file.synced) :][: random.randint(0, unsynced)]
        self.can_lose_power()

    def _replay(self, record: Record) -> None:
        """As far as what it needs has survived."""
        if record.what == "create":
            folder, name = self._parent(record.destination)
            folder.names.setdefault(name, record.node)
            return
        folder, name = self._parent(record.source)
        if folder.names.get(name) is not record.node:
            return
        del folder.names[name]
        if record.what == "rename":
            folder, name = self._parent(record.destination)
            folder.names[name] = record.node

    def _files(self) -> Iterable[File]:
        for folder in self.directories.values():
            for node in folder.names.values():
                if isinstance(node, File):
                    yield node
