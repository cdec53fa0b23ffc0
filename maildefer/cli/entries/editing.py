"""Editing a dead letter: an editor gets a copy, and what it makes of that is pushed. The dead letter stays.

The edited copy is a file of this user's own until its entry is durable; after a fault, or a death, it is there still.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import Final

from maildefer.cli import output
from maildefer.cli.entries.copies import push_copy
from maildefer.errors import EntryNotFound, MaildeferError
from maildefer.maildir.layout import Layout
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import FoundEntry
from maildefer.maildir.system import SYSTEM, System
from maildefer.message.envelope import Envelope, asking, encode_address, split

_LIMIT_BYTES: Final = 64 << 20
_TOP: Final = re.compile(rb"Return-Path: *<([^\r\n]*)>\r?\nDelivered-To: *([^\r\n]+)\r?\n").match


def edit(layout: Layout, found: FoundEntry, *, system: System = SYSTEM) -> str:
    """Have a dead letter edited, and push what was made of it; returns the new key. Raises MaildeferError, OSError."""
    data = entries.read_found(found, _LIMIT_BYTES, system=system)
    envelope, offset = split(data, found.key)
    text = data if envelope is None or not offset else _top(envelope, data[offset:]) + data[offset:]
    folder = tempfile.mkdtemp(prefix="maildefer-edit-")
    path = f"{folder}/message.eml"
    with open(path, "xb") as file:
        file.write(text)
    output.say(f"editing {path}")
    edited = text
    try:
        fault = _run_editor(path)
        with open(path, "rb") as file:
            edited = file.read()
        if edited == text + b"\n":  # which editors put at the end of a file without one
            edited = text
        if fault:
            raise MaildeferError(f"{fault}: nothing is requeued")
        if edited == text:
            raise MaildeferError("nothing was changed, so nothing is requeued")
        message = edited
        if offset and envelope is not None:
            envelope, message = _read_top(edited, envelope)
        if not message.strip():
            raise MaildeferError("the message is empty: nothing is requeued")
        _must_be_there(found, system)
        key = push_copy(layout, found, data, message, envelope if offset else None, "edit", system=system)
    except (MaildeferError, OSError):
        if edited != text:
            output.complain(f"what was edited is in {path}")
        else:
            _discard(folder)
        raise
    _discard(folder)
    return key


def _discard(folder: str) -> None:
    """Remove what was edited, with what the editor has left beside it."""
    with suppress(OSError):
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)


def _top(envelope: Envelope, message: bytes) -> bytes:
    """The envelope as two lines to edit, which end as the message's do."""
    end = b"\r\n" if message.partition(b"\n")[0].endswith(b"\r") else b"\n"
    lines = (b"Return-Path: <", encode_address(envelope.sender), b">", end)
    return b"".join((*lines, b"Delivered-To: ", encode_address(envelope.recipient), end))


def _read_top(edited: bytes, before: Envelope) -> tuple[Envelope, bytes]:
    if (top := _TOP(edited)) is None:
        raise MaildeferError(
            "its first two lines are not `Return-Path: <SENDER>` and `Delivered-To: RECIPIENT`: nothing is requeued"
        )
    sender, recipient = (one.strip().decode("utf-8", "surrogateescape") for one in top.groups())
    return asking(sender, recipient, before.dsn), edited[top.end() :]


def _run_editor(path: str) -> str:
    """Run the user's editor; returns what is wrong, if anything. An interrupt is for the editor."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run([*shlex.split(command), path], check=False).returncode
    except (OSError, ValueError) as fault:
        return f"the editor {command!r} can't be run ({fault}): set VISUAL or EDITOR"
    finally:
        signal.signal(signal.SIGINT, before)
    return f"the editor {command!r} ended with {code}" if code else ""


def _must_be_there(found: FoundEntry, system: System) -> None:
    """Raise EntryNotFound if somebody has requeued or deleted it meanwhile."""
    with suppress(OSError):
        system.lstat(found.path)
        return
    raise EntryNotFound(found.key, found.directory)
