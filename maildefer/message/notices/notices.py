"""Whether a sender is told that its message has failed, is late or has arrived, and the push of the report.

A report goes to the envelope's sender, from the null sender, by way of the queue that the setting names. It is pushed
before its message is settled, once for all attempts at that: see `maildir.idempotency`. What is no person's mail, and
what may have another's address as its sender, gets none (RFC 3834, section 2; RFC 5321, section 6.1 and 7.9). A sender
hears of failures unless it asks for none, and of the rest only if it asks for it (RFC 3461, section 4.1).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from maildefer import events
from maildefer.digest import blake2b
from maildefer.errors import (
    AddressRefused,
    ClaimLost,
    EntryMalformed,
    EntryTooLarge,
    MaildeferError,
    StorageFault,
    raise_named,
)
from maildefer.host.identity import this_host
from maildefer.maildir.drafts.entry import Draft
from maildefer.maildir.due import clock_of
from maildefer.maildir.idempotency.once import OncePusher
from maildefer.maildir.layout import Layout
from maildefer.maildir.names import fresh_stem, pushed_at
from maildefer.maildir.push import Pusher
from maildefer.maildir.system import SYSTEM, System
from maildefer.maildir.upkeep.rates import RateOf, RateSlots
from maildefer.message.automatic import TAKES_REPORTS, is_report
from maildefer.message.envelope import Envelope, block, split
from maildefer.message.notices.config import EXPIRED, Action, NoticeSettings
from maildefer.message.outgoing import mx
from maildefer.message.request import MailRequest, received

VIA: Final = "notice"  # in the Received line of a report's entry
_HOUR_SECONDS: Final = 3600.0
_LATE_SECONDS: Final = 20 * 3600.0  # for so long a message is late; a marker is kept for a day
_EVENTS: Final[dict[Action, str]] = {"failed": "FAILURE", "delayed": "DELAY"}  # else SUCCESS
_WORDS: Final[dict[Action, str]] = {
    "failed": "the message could not be processed",
    "delayed": "the message could not be delivered yet",
    "delivered": "delivered",
}
_PROTOCOL: Final = re.compile(
    rb"\nReceived: [^\n]*\(maildefer\) with ([!-~]+) id "
).search  # the last one: ours
_LOGGED_IN: Final = re.compile(rb"(?:UTF8|E)?(?:SMTP|LMTP)S?A").fullmatch  # RFC 3848
_REPLY: Final = re.compile(r"(?:^|: )([45]\d\d)[ -]")
_STATUS: Final = re.compile(r"\b([45])\.\d{1,3}\.\d{1,3}\b")


class RateReached(MaildeferError):
    """There were as many reports in an hour as there may be."""


class Notices:
    """Sends the reports of a process; any thread."""

    def __init__(
        self,
        settings: NoticeSettings,
        open_queue: Callable[[str], Layout],
        home: str,
        system: System = SYSTEM,
    ) -> None:
        """`home`: the queue in which the rates are kept; `open_queue` opens a queue by its path in the settings."""
        self._settings = settings
        self._open_queue = open_queue
        self._home = home
        self._system = system

    def report(
        self,
        claim: Any,
        message: object,
        action: Action,
        words: str | None,
        fault: object,
        lifetime_seconds: float | None = None,
    ) -> None:
        """Report what becomes of a claimed message, if anybody is to be told; the log says so.

        `fault` is what the handler has raised, or a server has said. Without words that are meant for the sender, it
        learns only that there was a failure. Raises StorageFault's kinds that are temporary: then nothing was pushed,
        or it will be found so.
        """
        if not isinstance(message, MailRequest) or not message.queue:
            return
        if action == "delayed" and not self._is_late(claim):
            return
        facts: dict[str, Any] = {"key": claim.key, "queue": message.queue}
        try:
            target = self._open_queue(self._settings.queue)
            is_delivery = self._open_queue(message.queue).path == target.path
            if not is_delivery and self._settings.rejects == "never":
                return
            data = claim.read()
            envelope, offset = split(data, claim.key)
            came = received(data, claim.key, None, message.queue, None)
            if why := self._why_not(envelope, came, data[:offset], action, is_delivery):
                events.emit("notice.withheld", reason=why, **facts)
                return
            assert envelope is not None
            facts["to"] = envelope.sender
            said = _facts_of(action, fault, words or _WORDS.get(action, ""))
            pushed = pushed_at(claim.key)
            if pushed is not None and lifetime_seconds is not None:
                said["retried_until"] = pushed + lifetime_seconds
            if (report := self._push(target, came, envelope, action, said)) is not None:
                events.emit("notice.sent", action=action, report=report, **facts)
        except ClaimLost:
            raise
        except (RateReached, AddressRefused, EntryMalformed, EntryTooLarge) as refusal:
            events.emit("notice.withheld", reason=str(refusal), **facts)
        except Exception as failure:  # whatever others' bytes lead to, the entry is to be buried
            if isinstance(failure, StorageFault) and failure.temporary:
                raise
            events.emit("notice.failed", error=f"{type(failure).__name__}: {failure}", **facts)

    def _is_late(self, claim: Any) -> bool:
        pushed = pushed_at(claim.key)
        late_seconds = 0.0 if pushed is None else claim.mount_time() - pushed - self._settings.delay_seconds
        return pushed is not None and 0 <= late_seconds < _LATE_SECONDS

    def _why_not(
        self, envelope: Envelope | None, message: MailRequest, top: bytes, action: Action, is_delivery: bool
    ) -> str | None:
        """Why nobody is told; None if the sender is."""
        if envelope is None or not envelope.sender:
            return "null sender"
        if not message.dsn.wants(_EVENTS.get(action, "SUCCESS")):
            return f"NOTIFY={','.join(sorted(message.dsn.notify))}"
        takes_reports = TAKES_REPORTS(envelope.sender) and not is_report(message._readable())
        if not takes_reports and (sign := message.automatic_sign) is not None:
            return sign
        protocol = _PROTOCOL(top)
        is_known = is_delivery or self._settings.rejects == "always" or (protocol and _LOGGED_IN(protocol[1]))
        if not is_known and not message.authentication.vouches_for(envelope.sender):
            return "the sender may be forged"
        return None

    def _push(
        self,
        target: Layout,
        message: MailRequest,
        envelope: Envelope,
        action: Action,
        said: dict[str, Any],
    ) -> str | None:
        """Push the report; returns its key, or None if an attempt before this one has pushed it."""
        key, data = message.key or "", message.to_bytes()
        about = f"{key}\n{envelope.recipient}\n{action}\n".encode("utf-8", "surrogateescape")
        name = blake2b(about + data, digest_size=16).hexdigest()
        pusher = Pusher(target, host=this_host().label, system=self._system)

        def write() -> list[Draft]:
            from maildefer.message.notices.report import Reported, report_of  # the e-mail package

            self._take_rates(envelope.sender, "notices" if action == "failed" else "notices asked")
            now = time.time()
            reported = Reported(
                action=action,
                sender=envelope.sender,
                recipient=envelope.recipient,
                dsn=message.dsn,
                pushed_at=pushed_at(key),
                **said,
            )
            host = mx.configured_name or os.uname().nodename
            report = report_of(reported, data, host=host, author=self._settings.author, name=name, now=now)
            stem = fresh_stem(this_host().label, self._system, None)
            top = block(stem, "", envelope.sender, host=host, when=now, via=VIA)
            draft = pusher.draft(stem)
            draft.append_all((top, report))
            draft.sync()
            return [draft]

        answer = OncePusher(pusher, system=self._system).push(name, "notice", write)
        return None if answer.is_repeated else answer.entries[0][1]

    def _take_rates(self, sender: str, kind: str) -> None:
        """Raises RateReached, StorageFault's kinds. What senders ask for takes no place from failures."""
        home = self._open_queue(self._home)
        try:
            clock_of(home).now()  # measured, and kept for the next minute
        except OSError as fault:
            raise_named(home.path, fault)
        slots = RateSlots(home, now=clock_of(home).now, system=self._system)
        of_all = slots.take_slot(RateOf(kind, self._settings.in_all, _HOUR_SECONDS))
        if isinstance(of_all, float):
            raise RateReached(f"in_all: {self._settings.in_all} reports in an hour")
        rate = RateOf(f"{kind} {sender.lower()}", self._settings.per_sender, _HOUR_SECONDS)
        if isinstance(slots.take_slot(rate), float):
            slots.return_slot(of_all)
            raise RateReached(f"per_sender: {self._settings.per_sender} reports in an hour")


def _facts_of(action: Action, fault: object, words: str) -> dict[str, Any]:
    """The status, the server and its reply, from what the delivery has raised or noted, else from the words."""
    with suppress(AttributeError):  # else no server has replied
        said: Any = fault
        return {
            "words": f"{said.code} {said.words}",
            "code": said.code,
            "status": said.status,
            "server": said.server,
        }
    code, status = _REPLY.search(words), _STATUS.search(words)
    kind = {"failed": "5", "delayed": "4"}.get(action, "2")
    given = status[0] if status and status[1] == kind else f"{kind}.0.0"
    if action == "failed" and code is not None and code[1].startswith("4"):
        given = EXPIRED
    return {"words": words, "code": int(code[1]) if code else 0, "status": given}
