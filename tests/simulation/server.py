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
    folder: Directory
    name: str
    other: Directory  # where a rename leads
    new_name: str
    node: Node
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
        self.keeps_order = False  # a power cut takes the last changes, and not any
        self.leaves_zeros = False  # it may also leave a file its length, and not its bytes
        self._base: dict[Directory, dict[str, Node]] = {}
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
        else:
            if isinstance(there, File):
                raise refusal(errno.ENOTDIR, destination)
            if there is not None and there.names:
                raise refusal(errno.ENOTEMPTY, destination)
            self._move_directory(source, destination)
        self._note("rename", folder, name, other, new_name, node)
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
        self._note("unlink", folder, name, folder, "", node)
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
        self._note("create", folder, name, folder, name, made)
        return made

    def mkdir(self, path: str, now: float) -> None:
        folder, name = self._parent(path)
        if name in folder.names:
            raise refusal(errno.EEXIST, path)
        made = folder.names[name] = self.directories[path] = self._new_directory()
        folder.mtime = now
        self._note("create", folder, name, folder, name, made)

    def rmdir(self, path: str, now: float) -> None:
        folder, name = self._parent(path)
        if self.directory(path).names:
            raise refusal(errno.ENOTEMPTY, path)
        self._note("unlink", folder, name, folder, "", folder.names[name])
        del folder.names[name], self.directories[path]
        folder.mtime = now

    def write(self, file: File, data: bytes, now: float) -> None:
        file.data += data
        file.mtime = now

    # Power

    def _note(
        self, what: Operation, folder: Directory, name: str, other: Directory, new_name: str, node: Node
    ) -> None:
        if self.journal is not None:
            self.journal.append(Record(what, folder, name, other, new_name, node))

    def can_lose_power(self) -> None:
        """From now on: what is there now is on the disk."""
        self.journal = []
        self._base = {folder: dict(folder.names) for folder in self.directories.values()}
        for file in self._files():
            file.synced = file.data

    def sync_directory(self, path: str) -> None:
        """Its changes of now are on the disk, and all that the same files and folders went through before.

        With order kept, so is all else that was changed before.
        """
        if self.journal is None:
            return
        synced, touched = self.directories.get(path), set()
        for record in reversed(self.journal):
            if synced in (record.folder, record.other):
                touched.add(record.node)
            record.durable = record.durable or record.node in touched or (self.keeps_order and bool(touched))

    def sync_file(self, file: File) -> None:
        """Its bytes are on the disk; with order kept, its name too, and all that was changed before."""
        file.synced = file.data
        touched = False
        for record in reversed(self.journal or () if self.keeps_order else ()):
            touched = touched or record.node is file
            record.durable = record.durable or touched

    def was_durable(self, file: File) -> bool:
        """Whether its bytes, and its names before the last change of them, would survive a power cut."""
        records = [record for record in self.journal or () if record.node is file]
        return file.synced == file.data and all(record.durable for record in records[:-1])

    def is_durable(self, path: str) -> bool:
        """Whether the name that is there would survive a power cut."""
        node = self.look(path)
        return all(record.durable for record in self.journal or () if record.node is node)

    def cut_power(self, random: Random) -> None:
        """What was not synced is gone: of the names the last ones (a journal), or any; of the bytes any tail."""
        assert self.journal is not None
        records, last = self.journal, -1
        for index, record in enumerate(records):
            last = index if record.durable else last
        kept = random.randint(last + 1, len(records)) if self.keeps_order else 0
        made = {record.node for record in records if isinstance(record.node, Directory)}
        for folder in (*self._base, *made):
            folder.names = dict(self._base.get(folder, {}))
        for index, record in enumerate(records):
            if record.durable or (index < kept if self.keeps_order else random.random() < 0.5):
                self._replay(record)
        self._find_directories()
        for file in self._files():
            file.links = 1
            unsynced = len(file.data) - len(file.synced)
            if unsynced < 0:  # written anew in place: the old bytes or the new ones
                file.data = random.choice((file.synced, file.data))
                continue
            size, most = len(file.data), random.randint(0, unsynced)
            file.data = file.synced + file.data[len(file.synced) :][:most]
            if self.leaves_zeros and random.random() < 0.5:
                file.data = file.data.ljust(size, b"\0")
        self.can_lose_power()

    def _replay(self, record: Record) -> None:
        """As far as what it needs has survived."""
        folder, node = record.folder, record.node
        if record.what == "create":
            folder.names.setdefault(record.name, node)
            return
        if folder.names.get(record.name) is not node:
            return
        there = record.other.names.get(record.new_name)
        if not record.durable and isinstance(there, Directory) and there.names:  # what emptied it is lost
            return
        del folder.names[record.name]
        if record.what == "rename":
            record.other.names[record.new_name] = node

    def _find_directories(self) -> None:
        """Set the paths of all folders that can be reached."""
        self.directories, found = {}, [("/", self.directories["/"])]
        while found:
            path, folder = found.pop()
            self.directories[path] = folder
            for name, node in folder.names.items():
                if isinstance(node, Directory):
                    found.append((f"{path.rstrip('/')}/{name}", node))

    def _files(self) -> Iterable[File]:
        for folder in self.directories.values():
            for node in folder.names.values():
                if isinstance(node, File):
                    yield node
