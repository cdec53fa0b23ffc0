"""Detects bounces and reads them: delivery reports (RFC 3464) by their fields, other bounces by their texts.

The score counts the fields. Where they do not decide, `flufl.bounce` is asked, if it is installed, which knows the
texts of servers that write no reports. It is imported, and the message parsed, only when a bounce is asked for.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from maildefer.message.enhanced_status import CLASSES, DETAILS, SUBJECTS
from maildefer.message.mime.headers import header_from_mime_encoding, normalize_header
from maildefer.message.mime.parser import from_string

if TYPE_CHECKING:
    from maildefer.message.mime.mail import MailBase

Code = tuple[int | None, str | None]
NO_CODE: Final[Code] = (None, None)
THRESHOLD: Final = 0.3

BOUNCE_MATCHERS: Final[dict[str, re.Pattern[str]]] = {
    "Action": re.compile(r"(failed|delayed|delivered|relayed|expanded)", re.IGNORECASE),
    "Content-Description": re.compile(r"(.*\S)", re.DOTALL),
    "Diagnostic-Code": re.compile(r"(?:([a-z0-9.-]+);)?\s*([0-9]\S*)\s*(.*)", re.IGNORECASE | re.DOTALL),
    "Final-Recipient": re.compile(r"(?:([a-z0-9-]+);)?\s*(.*\S)", re.IGNORECASE | re.DOTALL),
    "Received": re.compile(r"(.*\S)", re.DOTALL),
    "Remote-Mta": re.compile(r"(?:([a-z0-9-]+);)?\s*(.*\S)", re.IGNORECASE | re.DOTALL),
    "Reporting-Mta": re.compile(r"(?:([a-z0-9-]+);)?\s*(.*\S)", re.IGNORECASE | re.DOTALL),
    "Status": re.compile(r"([0-9])\.([0-9]{1,3})\.([0-9]{1,3})"),
}
"""Header → what its value must match; the groups of a match are what `BounceAnalyzer.headers` holds. Add to it."""

BOUNCE_MAX: Final = 2.0 * len(BOUNCE_MATCHERS)
"""The most points: two for each header that is known from the start."""

_LONGEST: Final = 2000
_READ_BYTES: Final = 128 << 10  # the detectors need a second for a megabyte, and their texts stand at the top

# Only mail from these senders, or with these subjects, is searched for such texts: people write about bounces, too.
_DAEMONS: Final = re.compile(r"daemon|postmaster|mail.?(system|delivery)|<>", re.IGNORECASE)
_SUBJECTS: Final = re.compile(
    r"undeliver|non-?deliver|deliver\w* (failure|status|error)|be delivered|returned mail|non remis|unzustellbar|"
    r"(error|failure) (during|in) deliver|failure notice|rejected mail|user unknown",
    re.IGNORECASE,
)


class HasMailBase(Protocol):
    """The part of a `MailRequest` that is read."""

    @property
    def base(self) -> MailBase: ...
    @property
    def Data(self) -> bytes | str: ...
    @property
    def From(self) -> str | None: ...
    def walk(self) -> Iterator[MailBase]: ...


def match_bounce_headers(msg: HasMailBase) -> dict[str, Any]:
    """The known headers of all parts: for each its matched groups, as `BounceAnalyzer.headers` has them."""
    return _matched(msg)[0]


def detect(msg: HasMailBase) -> BounceAnalyzer:
    """Analyse all parts of the message. No content raises an error; the cost is linear in its size."""
    headers, found = _matched(msg)
    points = sum(1 + len(headers.get(name, ())) / number for name, number in found.items())
    return BounceAnalyzer(headers, points / BOUNCE_MAX, msg)


def _matched(msg: HasMailBase) -> tuple[dict[str, Any], dict[str, int]]:
    """The headers that match, and how many of each name there are."""
    found: dict[str, int] = {}
    headers: dict[str, Any] = {}
    parts: dict[str, MailBase] = {}
    for part in msg.walk():
        for raw_name, raw_value in part.mime_part.raw_items():
            name = normalize_header(raw_name)
            matcher = BOUNCE_MATCHERS.get(name)
            if matcher is None:
                continue
            found[name] = found.get(name, 0) + 1
            value = str(header_from_mime_encoding(str(raw_value)))[:_LONGEST].strip()
            if match := matcher.match(value):
                headers.setdefault(name, []).append(match.groups())
            if name == "Content-Description":
                parts.setdefault(value.lower(), part)
    if parts:
        headers["Content-Description-Parts"] = parts
    return headers, found


class BounceAnalyzer:
    """The content of a bounce. `score` is between 0 and 1; `headers` has the matched groups of each known header."""

    def __init__(self, headers: dict[str, Any], score: float, msg: HasMailBase | None = None) -> None:
        self.headers = headers
        self.score = score
        status = self._first("Status")
        is_decided = status is not None and score > THRESHOLD
        self._failures = _no_failures() if is_decided or msg is None else _failures(msg)
        self.primary_status: Code = NO_CODE
        self.secondary_status: Code = NO_CODE
        self.combined_status: Code = NO_CODE
        if status is not None:
            first, second, third = status
            self.primary_status = (int(first), CLASSES.get(int(first), ""))
            self.secondary_status = (int(second), SUBJECTS.get(int(second), ""))
            self.combined_status = (int(second + third), DETAILS.get(f"{int(second)}.{int(third)}", ""))
        self.remote_mta = self._last_group("Remote-Mta")
        self.reporting_mta = self._last_group("Reporting-Mta")
        self.final_recipient = self._last_group("Final-Recipient")
        self.action = self._last_group("Action")
        codes = self._first("Diagnostic-Code")
        self.diagnostic_codes: tuple[str, str] | list[None] = [None, None] if codes is None else codes[-2:]
        self.content_parts: dict[str, MailBase] = headers.get("Content-Description-Parts", {})
        self.notification: MailBase | None = self.content_parts.get("notification")
        undelivered = self.content_parts.get("undelivered message")
        self.original: MailBase | None = undelivered.parts[0] if undelivered and undelivered.parts else None
        report = self.content_parts.get("delivery report")
        self.report: list[MailBase] | None = None if report is None else report.parts

    @property
    def failed_recipients(self) -> tuple[frozenset[str], frozenset[str]]:
        """The addresses of temporary and of permanent failures that the message's text names."""
        return self._failures

    def probable(self, threshold: float = THRESHOLD) -> bool:
        """Whether it is a bounce: by the score, or because the text names recipients that were not reached."""
        return self.score > threshold or any(self._failures)

    def is_hard(self) -> bool:
        """Whether the failure is permanent."""
        return self.probable() and self._class() > 4

    def is_soft(self) -> bool:
        """Whether the failure is temporary."""
        return self.probable() and 0 < self._class() <= 4

    def error_for_humans(self) -> str:
        """One sentence about the failure."""
        if self.primary_status[0] is None:
            if any(self._failures):
                return f"not delivered to {', '.join(sorted(self._failures[0] | self._failures[1]))}"
            return "no status was found in it"
        texts = (self.primary_status[1], self.secondary_status[1], self.combined_status[1])
        known = ", ".join(text for text in texts if text)
        who = f" for {self.final_recipient}" if self.final_recipient else ""
        return f"{known or 'unknown status'}{who}"

    def _class(self) -> int:
        if self.primary_status[0] is not None:
            return self.primary_status[0]
        temporary, permanent = self._failures
        return 5 if permanent else 4 if temporary else 0

    def _first(self, name: str) -> Any:
        matched = self.headers.get(name)
        return matched[0] if matched else None

    def _last_group(self, name: str) -> str | None:
        groups = self._first(name)
        return None if groups is None else groups[-1]


def _no_failures() -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(), frozenset()


def _failures(msg: HasMailBase) -> tuple[frozenset[str], frozenset[str]]:
    """The recipients of temporary and of permanent failures that the message's text names."""
    if not _is_by_a_daemon(msg):
        return _no_failures()
    try:
        known: Any = importlib.import_module("flufl.bounce")
    except ImportError:  # a stripped installation: the score alone decides
        return _no_failures()
    # Hostile mail makes single detectors fail, which `flufl.bounce` survives and would log each time.
    logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)
    try:
        temporary, permanent = known.all_failures(_beginning(msg))
    except Exception:  # noqa: BLE001  # raised by detectors for parts that are no text: no failure is known then
        return _no_failures()
    return _texts(temporary), _texts(permanent)


def _beginning(msg: HasMailBase) -> Any:
    data = msg.Data
    if len(data) <= _READ_BYTES:
        return msg.base.mime_part
    top = data[:_READ_BYTES]
    return from_string(top).mime_part


def _is_by_a_daemon(msg: HasMailBase) -> bool:
    if not msg.From:  # the null sender (RFC 5321, section 4.5.5)
        return True
    said = " ".join(msg.base.raw(name) or "" for name in ("from", "return-path"))
    return bool(_DAEMONS.search(f"{msg.From} {said}") or _SUBJECTS.search(msg.base["subject"] or ""))


def _texts(addresses: Any) -> frozenset[str]:
    return frozenset(
        one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in addresses
    )
