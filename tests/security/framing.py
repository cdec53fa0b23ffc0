"""What a client has sent, read a second time: which messages there were, by the RFCs' words alone, and the replies.

It knows nothing of the front end's code. Replies tell only what was accepted; where a message begins and ends is found
here anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

LINE_BYTES: Final = 12288
ENDLESS_BYTES: Final = 1 << 20
_END: Final = b"\r\n.\r\n"
_BDAT: Final = re.compile(rb"[ \t]*BDAT(?![A-Z0-9])", re.IGNORECASE).match
_QUEUED: Final = b"250 2.0.0 queued as "


@dataclass(frozen=True, slots=True)
class Sent:
    """A complete message. `keys`: what it was queued as, of each reply; none where it was refused or not answered."""

    data: bytes
    recipients: frozenset[bytes]
    keys: tuple[bytes, ...] = ()
    answered: bool = True


class Misframed(AssertionError):
    """The replies do not fit to what was sent."""


def replies(text: bytes) -> Iterator[bytes]:
    """Each reply, of one line or several, in one piece."""
    lines: list[bytes] = []
    for line in text.splitlines(keepends=True):
        if not line.endswith(b"\r\n") or not line[:3].isdigit() or line[3:4] not in (b" ", b"-"):
            raise Misframed(f"not a reply: {line!r}")
        lines.append(line[:-2])
        if line[3:4] == b" ":
            yield b"\n".join(lines)
            lines.clear()
    if lines:
        raise Misframed(f"a reply without its last line: {lines!r}")


@dataclass(slots=True)
class Reader:
    """Goes through the stream with the replies beside it."""

    stream: bytes
    answers: list[bytes]
    lmtp: bool = False
    messages: list[Sent] = field(default_factory=list)
    _at: int = 0
    _in_transaction: bool = False
    _recipients: list[bytes] = field(default_factory=list)
    _chunks: bytes | None = None

    def read(self) -> list[Sent]:
        """All complete messages; the greeting is the first answer."""
        self.answers.pop(0)
        while (line := self._line()) is not None and self._obeyed(line):
            pass
        return self.messages

    def _line(self) -> bytes | None:
        end = self.stream.find(b"\n", self._at)
        if end < 0:
            return None
        line, self._at = self.stream[self._at : end], end + 1
        return line[:-1] if line.endswith(b"\r") else line

    def _obeyed(self, line: bytes) -> bool:
        """False at the end: no answer is left, or the last one closes."""
        verb, _, argument = line.strip(b" \t").partition(b" ")
        verb = verb.upper()
        if len(line) > ENDLESS_BYTES or not self.answers:
            if verb == b"BDAT":  # its answer comes when all of it has
                self._chunk(argument.strip(), None)
            return False
        if len(line) > LINE_BYTES:
            return not self.answers.pop(0).startswith(b"421") and not _BDAT(line)
        answer = self.answers[0]
        if answer.startswith(b"421"):  # it had enough before this line
            return False
        if verb == b"BDAT" and not answer.startswith((b"501 ", b"521 ", b"500 ", b"530 ", b"552 5.3.4")):
            return self._chunk(argument.strip(), answer)
        if verb == b"BDAT" and answer.startswith(b"552") and self._chunks is not None:
            return self._chunk(argument.strip(), answer)
        self.answers.pop(0)
        if verb == b"DATA" and answer.startswith(b"354"):
            return self._data()
        if answer.startswith((b"221", b"421")) or _BDAT(line):  # which was not obeyed: it closes
            return False
        if answer.startswith(b"250"):
            self._note(verb, argument)
        return True

    def _note(self, verb: bytes, argument: bytes) -> None:
        if verb in (b"RSET", b"HELO", b"EHLO", b"LHLO"):
            self._forget()
        elif verb == b"MAIL":
            self._recipients = []
        elif verb == b"RCPT":
            self._recipients.append(_address(argument))

    def _data(self) -> bool:
        rest = b"\r\n" + self.stream[self._at :]
        end = rest.find(_END)
        if end < 0:
            return False
        self._at += end + len(_END) - 2
        lines = rest[2 : end + 2].split(b"\r\n")
        return self._settled(b"\n".join(line[1:] if line[:1] == b"." else line for line in lines))

    def _chunk(self, argument: bytes, answer: bytes | None) -> bool:
        size, _, last = argument.partition(b" ")
        if not size.isdigit() or self._at + int(size) > len(self.stream):
            return False
        chunk = self.stream[self._at : self._at + int(size)]
        self._at += int(size)
        if answer is not None and answer.startswith(b"503"):
            self.answers.pop(0)
            return True
        self._chunks = (self._chunks or b"") + chunk
        if last:
            return self._settled(self._chunks.replace(b"\r\n", b"\n"))
        if answer is None:
            return False
        self.answers.pop(0)
        return not answer.startswith(b"421")

    def _settled(self, data: bytes) -> bool:
        """The message is complete: one reply, or with LMTP one for each recipient that was accepted."""
        count = len(self._recipients) if self.lmtp else 1
        answers, self.answers = self.answers[:count], self.answers[count:]
        if answers and len(answers) < count:
            raise Misframed(f"{len(answers)} replies for {count} recipients")
        queued = [answer for answer in answers if answer.startswith(_QUEUED)]
        keys = tuple(dict.fromkeys(key for answer in queued for key in answer[len(_QUEUED) :].split()))
        self.messages.append(Sent(data, frozenset(self._recipients), keys, bool(answers)))
        self._forget()
        return bool(answers) and not answers[-1].startswith(b"421")

    def _forget(self) -> None:
        self._recipients, self._chunks = [], None


def _address(argument: bytes) -> bytes:
    """What stands behind TO:, without brackets and parameters."""
    text = argument.strip()[3:].strip()
    if text.startswith(b"<"):
        quoted, at = False, 1
        while at < len(text) and (quoted or text[at : at + 1] != b">"):
            quoted ^= text[at : at + 1] == b'"'
            at += 1 if text[at : at + 1] != b"\\" else 2
        return _least_quoted(text[1:at])
    return text.split(None, 1)[0]


def _least_quoted(address: bytes) -> bytes:
    """RFC 5321, section 4.1.2: quotes and backslashes are how a local part is written, and no part of it."""
    if not address.startswith(b'"'):
        return address
    local, at = b"", 1
    while address[at : at + 1] != b'"':
        at += address[at : at + 1] == b"\\"
        local += address[at : at + 1]
        at += 1
    domain = address[at + 1 :]
    if all(local.split(b".")) and not any(byte in b' <>"\\()[],:;@' for byte in local):
        return local + domain
    escaped = local.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"' + escaped + b'"' + domain
