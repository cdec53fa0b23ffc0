"""The history of entries, as the journals of their queues tell it: `maildefer explain`.

It is made from what processes have recorded before they did it, by the clock of each host: a process that was killed in
between may have recorded what did not happen, and what follows shows that. Records are untrusted.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from maildefer.control.journal_reader import JournalRecord, list_files, parse_record, read_lines
from maildefer.maildir import reasons
from maildefer.maildir.journal_file import REPEATED, quoted
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import EntryName, owner_of
from maildefer.maildir.operator import entries
from maildefer.maildir.operator.schedule import is_held
from maildefer.untrusted import UntrustedRecord

_ENDS: Final = {
    "ack": "ended",
    "pop": "taken out by pop",
    "delete": "deleted",
    "withdraw": "withdrawn by who pushed it",
    "kept": "not by this process: it was gone already",
}
_NOTES: Final = {
    "sent": "sends",
    "replay_of": "a replay",
    "edit_of": "an edited copy",
    "replay": "replayed",
    "edit": "edited",
    "requeue_of": "a dead letter that was moved back",
    "requeue": "moved back",
    REPEATED: "a second push was told of it",
}  # by a fact in a note
_FORMER: Final = {"handedoff": "handed_off"}  # of earlier versions
# Facts of notes that are no first ones:
_LATER: Final = {"outcome", "sent", "replay", "edit", "requeue", REPEATED}
_CLOCKS_SECONDS: Final = 3600.0  # by which a host's clock may be behind
_NEWEST_BYTES: Final = 64 << 20  # of a journal, where the last reasons are sought


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """What happened to an entry: `when` in Unix seconds, by the clock of `host`."""

    when: float
    host: str
    queue: str
    event: str
    facts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What a message is sought by, all of which must be true; `since` in Unix seconds."""

    message_id: str | None = None
    sender: re.Pattern[str] | None = None
    recipient: re.Pattern[str] | None = None
    since: float = 0.0

    def fits(self, facts: dict[str, str]) -> bool:
        return (
            (self.message_id is None or facts.get("id", "").strip("<>") == self.message_id.strip("<>"))
            and (self.sender is None or _fits(self.sender, facts.get("from")))
            and (self.recipient is None or _fits(self.recipient, facts.get("to")))
        )


def find_keys(queues: Sequence[Layout], sought: Sought, limit: int) -> list[str]:
    """The keys of messages that some attempt has read: the latest of them, the oldest first. Raises OSError."""
    found: dict[str, float] = {}
    for _, _, record in _records(queues, sought.since, b" note "):
        if record.verb == "note" and record.when >= sought.since and sought.fits(record.facts):
            found.setdefault(record.key, record.when)
    return sorted(found, key=lambda key: found[key])[-limit:]


def keys_that_begin(queues: Sequence[Layout], text: str, limit: int) -> list[str]:
    """The keys that are, or begin, like that, in journals or of entries; as `find_keys` has them. Raises OSError."""
    found = {record.key for _, _, record in _records(queues, 0.0, quoted(text).encode())}
    for queue in queues:
        for folder in entries.ALL_FOLDERS:
            found.update(one.key for one in entries.list_entries(queue, folder))
    return [text] if text in found else sorted(key for key in found if key.startswith(text))[-limit:]


def history_of(queues: Sequence[Layout], key: str) -> list[HistoryEvent]:
    """All that is known of a key, in the order of the times, and at last where its entry is now. Raises OSError."""
    found = sorted(
        (one for one in _records(queues, 0.0, quoted(key).encode()) if one[2].key == key),
        key=lambda one: (one[2].when, _rank(one[2])),
    )
    events, last = [], EntryName(key=key)
    for queue, name, record in found:
        event, facts, last = _told(record, last)
        host = name.split(".")[1]
        events.append(HistoryEvent(when=record.when, host=host, queue=queue.path, event=event, facts=facts))
    return events + [one for queue in queues for one in _now(queue, key)]


def last_reasons(queue: Layout, keys: Collection[str]) -> dict[str, str]:
    """Why entries were put off last, by key, the newest last, as far as the newest records of the journal tell.

    It reads so much of the journal and no more, however long that is. Raises OSError.
    """
    found: dict[str, tuple[float, str]] = {}
    records = _records([queue], 0.0, b",reason=", newest_bytes=_NEWEST_BYTES) if keys else ()
    for _, _, record in records:
        if record.verb == "note" and record.key in keys and (reason := record.facts.get("reason")):
            last = found.get(record.key)
            if last is None or record.when >= last[0]:  # of one millisecond, the record that stands last
                found[record.key] = record.when, reason
    return {key: reason for key, (_, reason) in sorted(found.items(), key=lambda one: one[1][0])}


def _rank(record: JournalRecord) -> int:
    """What is first of one moment: a push is recorded once it is durable."""
    if record.verb == "push":
        return 1
    return 0 if record.verb == "note" and not _LATER & record.facts.keys() else 2


def _told(record: JournalRecord, last: EntryName) -> tuple[str, dict[str, str], EntryName]:
    """What a record says, in words, its facts, and the entry's name from then on."""
    match record.verb:
        case "push":
            return "accepted", {}, last
        case "note":
            facts = record.facts
            outcome = _FORMER.get(outcome := facts.pop("outcome", ""), outcome)
            said = next((words for name, words in _NOTES.items() if name in facts), "received")
            return f"tried: {outcome}" if outcome else said, facts, last
        case "move":
            place = record.detail or ""
            folder, _, name = place.rpartition("/")
            entry = EntryName.parse(name)
            told = _moved(folder, entry, last), {"place": place}
            return (*told, replace(entry, attempts=1) if folder.startswith(".dead") else entry)
        case verb:
            rest = {name: value for name, value in record.facts.items() if name != "h"}
            return _ENDS.get(verb, verb), rest, last


def _moved(folder: str, entry: EntryName, last: EntryName) -> str:
    if folder.startswith("../"):
        return f"handed to {os.path.basename(os.path.dirname(folder))}"
    if folder.startswith(".done"):
        return f"ended, and kept until {_moment(entry.due)}"
    if folder.startswith(".dead"):
        return "buried"
    if folder.startswith(".later"):
        return "put on hold" if is_held(entry) else f"deferred until {_moment(entry.due)}"
    if entry.crashes > last.crashes:
        return "taken back from a worker that died"
    if not entry.attempts and last.attempts:
        return "requeued"
    return "to be tried" if last.due is not None else "returned"


def _now(queue: Layout, key: str) -> Iterator[HistoryEvent]:
    """Where the entry is at present, in one queue."""
    for folder in entries.ALL_FOLDERS:
        for found in entries.list_entries(queue, folder):
            if found.key == key:
                facts = {"name": found.name}
                if (owner := owner_of(found.name)) is not None:
                    facts["worker"] = f"{owner.lease}.{owner.pid}"
                if folder == "dead":
                    facts["reason"] = str(reasons.read_reason(queue, found.entry).get("reason", ""))
                with suppress(OSError):  # moved meanwhile
                    when = os.lstat(found.path).st_ctime
                    yield HistoryEvent(
                        when=when, host="", queue=queue.path, event=f"now {folder}", facts=facts
                    )


def _records(
    queues: Sequence[Layout], since: float, part: bytes, newest_bytes: int | None = None
) -> Iterator[tuple[Layout, str, JournalRecord]]:
    """The records of all journals in which that stands, with queue and file; what can't be read is passed over.

    With `newest_bytes`, only the ends of the newest files, each by a quarter of it at most.
    """
    day = time.strftime("%Y-%m-%d", time.gmtime(max(0.0, since - _CLOCKS_SECONDS)))
    for queue in queues:
        if not os.path.isdir(queue.journal):
            continue
        names = [name for name in list_files(queue) if name[:10] >= day]
        left = newest_bytes
        for name in names if newest_bytes is None else reversed(names):
            with suppress(OSError, UntrustedRecord):
                path, first = f"{queue.journal}/{name}", 0
                if left is not None and newest_bytes is not None:
                    size = os.lstat(path).st_size
                    first = max(0, size - min(left, newest_bytes // 4))
                    left -= size - first
                for line, _ in read_lines(path, first):
                    if part in line:
                        with suppress(UntrustedRecord):  # torn
                            if (record := parse_record(line)) is not None:
                                yield queue, name, record


def _fits(pattern: re.Pattern[str], address: str | None) -> bool:
    return address is not None and pattern.fullmatch(address.removeprefix("<").removesuffix(">")) is not None


def _moment(due: int | None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(due or 0))
