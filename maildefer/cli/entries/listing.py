"""Printing entries: one in a line, or as JSON, or the whole message. What is in them is untrusted."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Any, Final

from maildefer.cli import output
from maildefer.control import history
from maildefer.errors import EntryTooLarge, MaildeferError
from maildefer.maildir import durable, reasons
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, owner_of, pushed_at, pushed_by_us_at, size_of
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.entries import Folder, FoundEntry
from maildefer.maildir.operator.schedule import is_held
from maildefer.maildir.scan import priority_of
from maildefer.message.envelope import TOP_LIMIT_BYTES, Envelope, split

_LONGEST_REASON: Final = 200
BURIED: Final[tuple[Folder, ...]] = ("dead", "undeliverable")  # those with a reason beside them
_COUNTERS: Final = ("attempts", "failures", "crashes")
_SHOWN_BYTES: Final = 1 << 30  # more than any queue's `max_bytes` allows in earnest


def reasons_of(layout: Layout, shown: Collection[FoundEntry]) -> dict[str, str]:
    """Why these entries were put off last, by key, where a journal is kept."""
    tried = {one.key for one in shown if one.entry.attempts and one.folder not in BURIED}
    return history.last_reasons(layout, tried)


def entry_facts(
    layout: Layout, found: FoundEntry, *, envelope: bool = True, reason: str | None = None
) -> dict[str, Any]:
    """The facts of an entry, under the names of `postqueue -j` where it has them; `reason`: why it was put off."""
    entry = found.entry
    pushed, size, owner = arrived_at(entry.key), size_of(entry.key), owner_of(found.name)
    facts: dict[str, Any] = {
        "queue_name": found.folder,
        "queue_id": entry.key,
        "entry_name": found.name,
        "queue": layout.path,
        "arrival_time": None if pushed is None else int(pushed),
        "message_size": size if size is not None else _size(found.path),
        "priority": priority_of(entry.key),
        "attempts": entry.attempts,
        "failures": entry.failures,
        "crashes": entry.crashes,
        "handoffs": entry.handoffs,
        "held": is_held(entry),
        "handled": entry.is_handled and found.folder != "kept",
        "due_time": None if is_held(entry) else entry.due,
        "owner": None if owner is None else {"lease": owner.lease, "pid": owner.pid},
    }
    if envelope and (known := envelope_of(found.path)) is not None:
        facts |= {"sender": known.sender, "recipients": [{"address": known.recipient}]}
    if reason is not None:
        facts["reason"] = reason
    if found.folder in BURIED:
        record = reasons.read_reason(layout, entry)  # a dead letter's name has no counters
        facts |= {name: record[name] for name in _COUNTERS if isinstance(record.get(name), int)}
        facts |= {"reason": str(record.get("reason", ""))}
    return facts


def reason_line(layout: Layout, entry: EntryName) -> str:
    """Return the reason of a dead letter in one line, by which it is counted, and which `--reason-is` compares."""
    said = str(reasons.read_reason(layout, entry).get("reason", ""))
    first = said.strip().partition("\n")[0][:_LONGEST_REASON]
    return "".join(c if c.isprintable() else "?" for c in first) or "unknown"  # no shell carries a NUL


def show_line(facts: dict[str, Any]) -> None:
    """Print one entry in one line; columns are not aligned, since a listing may be endless."""
    arrival, size = facts["arrival_time"], facts["message_size"]
    age = output.duration(time.time() - arrival) if arrival is not None else "?"
    tries = f"try {facts['attempts']}" + (f", {facts['crashes']} crashed" if facts["crashes"] else "")
    words = [
        f"{facts['queue_name']:<8}",
        f"{age:>7}",
        f"{size if size is not None else '?':>9}",
        f"{tries:<6}",
    ]
    if facts["priority"] != "normal":
        words.append(facts["priority"])
    key = EntryName.parse(facts["entry_name"]).unique_key  # as a command takes it
    output.line(output.clean("  ".join([*words, key, people_of(facts), note_of(facts)]).rstrip()))


def people_of(facts: dict[str, Any]) -> str:
    """Sender and recipient of an entry, as `entry_facts` has them."""
    recipients = ", ".join(one["address"] for one in facts.get("recipients", []))
    return f"<{facts.get('sender') or ''}> → {recipients or '?'}"


def note_of(facts: dict[str, Any]) -> str:
    """What keeps an entry from being handled, in words; empty where it waits."""
    words = [_state_of(facts), str(facts.get("reason") or "")]
    if facts["handled"]:
        words.insert(0, "its handlers are done, and what they sent waits")
    return ": ".join(filter(None, words))


def _state_of(facts: dict[str, Any]) -> str:
    if facts["held"]:
        return "on hold"
    if facts["due_time"] is not None:
        seconds = facts["due_time"] - time.time()
        if facts["queue_name"] == "kept":
            return f"kept for {output.duration(max(0.0, seconds))}"
        return f"due {'in' if seconds > 0 else 'since'} {output.duration(abs(seconds))}"
    if facts["owner"]:
        return f"held by {facts['owner']['lease']}.{facts['owner']['pid']}"
    return ""


def show_message(found: FoundEntry, *, whole: bool) -> None:
    """Print the message as it was pushed, or the raw file: bytes into a pipe, escaped on a terminal.

    What no worker would read, such as a sparse file, is printed as a raw file only.
    """
    try:
        data = entries.read_found(found) if whole else entries.read_found(found, _SHOWN_BYTES)
    except EntryTooLarge as fault:
        raise MaildeferError(f"{fault}: `maildefer queue show QUEUE KEY --file` prints all of it") from fault
    shown = data if whole else data[split(data)[1] :]
    if os.isatty(1):
        output.line(output.clean_lines(shown.decode("utf-8", "backslashreplace").replace("\r\n", "\n")))
    else:
        output.raw(shown)


def envelope_of(path: str) -> Envelope | None:
    """The envelope of an entry's file; None if it has none, was moved meanwhile, or is no plain file."""
    try:
        return split(durable.read_small(path, limit_bytes=TOP_LIMIT_BYTES))[0]
    except OSError:
        return None


def arrived_at(key: str) -> float | None:
    """When the entry was pushed, also if it was pushed for later."""
    own = pushed_by_us_at(key)
    return pushed_at(key) if own is None else own


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:  # moved meanwhile
        return None
