"""Queues to which programs write that run as somebody else."""

from __future__ import annotations

import grp
import importlib
import json
import os
import pickle
import pwd
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from maildefer.maildir.layout import Layout, create_queue

ACCOUNTS_LOCK = "/tmp/maildefer-accounts.lock"
T = TypeVar("T")


def shared(home: Path) -> Layout:
    """A queue to which nobody may write."""
    layout = create_queue(str(home / "queue"))
    give_to_nobody(Path(layout.path))
    return layout


def give_to_nobody(folder: Path) -> None:
    """A folder and all in it."""
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


def as_user(uid: int, gid: int, act: Callable[[], object]) -> None:
    """In a process of that user's, which has no other group; it must succeed."""
    for late in ("encodings.ascii", "symtable"):  # at a first use, Python's own library may be out of reach
        importlib.import_module(late)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _become(uid, gid)
            act()
            status = 0
        except BaseException:  # noqa: BLE001  # the child must end here
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0, "it could not do that"


def told_by(uid: int, gid: int, tell: Callable[[], object]) -> Any:
    """What a process of that user's says, by way of JSON."""
    reading, writing = os.pipe()
    with open(reading, "rb") as answers:
        try:
            as_user(uid, gid, lambda: os.write(writing, json.dumps(tell()).encode()))
        finally:
            os.close(writing)
        return json.loads(answers.read())


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Real users: those of the workers and of the front end share a group, to which `other` belongs too."""

    worker: pwd.struct_passwd
    front: pwd.struct_passwd
    other: pwd.struct_passwd
    group: str
    gid: int


@contextmanager
def accounts() -> Iterator[Accounts]:
    """Made, and removed again; for root."""
    tail = os.urandom(3).hex()
    group, names = f"mdg{tail}", [f"mdw{tail}", f"mdf{tail}", f"mdo{tail}"]
    try:
        administer("groupadd", "--system", group)
        for name in names:
            administer("useradd", "--system", "--no-create-home", "--user-group", "--groups", group, name)
        yield Accounts(
            **dict(zip(("worker", "front", "other"), map(pwd.getpwnam, names), strict=True)),
            group=group,
            gid=grp.getgrnam(group).gr_gid,
        )
    finally:
        for name in names:
            with suppress(KeyError):
                pwd.getpwnam(name)
                administer("userdel", "--force", name)
        with suppress(KeyError):
            grp.getgrnam(group)
            administer("groupdel", group)


def administer(*command: str) -> None:
    """One at a time, and again: these commands fail while another has the lock of /etc/passwd."""
    deadline = time.monotonic() + 60.0
    while True:
        with FileLock(ACCOUNTS_LOCK):
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, done
        time.sleep(0.1)


def become(user: pwd.struct_passwd, act: Callable[[], T]) -> T:
    """What it returns, pickled, in a process of that user's with all of its groups; what it raises, an OSError, too."""
    answers, answering = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.initgroups(user.pw_name, user.pw_gid)
            os.setresgid(*[user.pw_gid] * 3)
            os.setresuid(*[user.pw_uid] * 3)
            try:
                said: object = act()
            except OSError as fault:
                said = fault
            os.write(answering, pickle.dumps(said))
        except BaseException:  # noqa: BLE001  # the child must end here
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(answering)
    with open(answers, "rb") as file:
        data = file.read()
    os.waitpid(child, 0)
    assert data, "it could not do that"
    found = pickle.loads(data)
    if isinstance(found, OSError):
        raise found
    return found  # type: ignore[no-any-return]


@contextmanager
def as_user_meanwhile(uid: int, gid: int, step: Callable[[], object]) -> Iterator[None]:
    """A process of that user's takes that step again and again, whatever becomes of it."""
    child = os.fork()
    if child == 0:
        try:
            _become(uid, gid)
            while True:
                with suppress(OSError):
                    step()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
