"""The attachments of a received message, as files that can be kept: name, type, bytes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from maildefer.message.mime.mail import MailBase, decoded_bytes, is_text, is_type

_LONGEST_NAME_BYTES = 150
# Characters that are unsafe in file names of some system, control and formatting characters among them.
_UNSAFE = re.compile(r'[<>:"|?*\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]')


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedAttachment:
    """One attachment, with the arguments of `MailResponse.attach`: `filename`, `content_type`, `data`."""

    filename: str
    """Safe to be used below any folder: no path, no control characters, no dot in front; each name once a message."""
    content_type: str
    """The type that the sender declares, in lower case; `application/octet-stream` if it declares no valid one."""
    data: bytes


def attachments_of(mail: MailBase) -> list[ReceivedAttachment]:
    """All parts that are files: those with a name, those of no text type, and those declared as attachments.

    An attached message is one file. Names and types are the sender's, and untrusted: a file may hold anything.
    """
    found: list[ReceivedAttachment] = []
    numbers: dict[str, int] = {}
    for part in _files(mail):
        ctype = part.content_encoding["Content-Type"][0]
        content_type = ctype if is_type(ctype) else "application/octet-stream"
        name = _safe(_declared_name(part)) or f"attachment{_extension(content_type)}"
        found.append(
            ReceivedAttachment(filename=_once(name, numbers), content_type=content_type, data=_data(part))
        )
    return found


def _files(mail: MailBase) -> Iterator[MailBase]:
    ctype = mail.content_encoding["Content-Type"][0] or ""
    if mail.parts and not ctype.startswith("message/"):
        for part in mail.parts:
            yield from _files(part)
    elif (
        mail.parts
        or (not is_text(ctype) and not ctype.startswith("multipart/"))
        or _is_declared_attachment(mail)
    ):
        yield mail


def _is_declared_attachment(mail: MailBase) -> bool:
    return mail.content_encoding["Content-Disposition"][0] == "attachment" or bool(_declared_name(mail))


def _declared_name(mail: MailBase) -> str:
    filename = mail.content_encoding["Content-Disposition"][1].get("filename")
    return filename or mail.content_encoding["Content-Type"][1].get("name") or ""


def _safe(name: str) -> str:
    name = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    name = " ".join(_UNSAFE.sub("_", name).split()).lstrip(". ").rstrip(". ")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension) > 20:
        stem, dot, extension = name, "", ""
    room = _LONGEST_NAME_BYTES - len((dot + extension).encode())
    short = stem.encode()[: max(room, 1)].decode("utf-8", "ignore").rstrip(". ")
    return f"{short}.{extension}" if extension else short


def _once(name: str, numbers: dict[str, int]) -> str:
    """A name different from those before it, also on filesystems without case."""
    chosen = name
    while (folded := chosen.casefold()) in numbers:
        numbers[name.casefold()] += 1
        stem, dot, extension = name.rpartition(".")
        number = numbers[name.casefold()]
        chosen = f"{stem}-{number}.{extension}" if dot else f"{name}-{number}"
    numbers[folded] = 1
    return chosen


def _extension(content_type: str) -> str:
    import mimetypes  # reads the system's tables of types; only files without a name need it

    return mimetypes.guess_extension(content_type) or ""


def _data(part: MailBase) -> bytes:
    if part.parts:  # a message, or a delivery report
        from maildefer.message.mime.canonical import to_message

        whole = to_message(part)
        return whole.text_below_head().encode("utf-8", "surrogateescape")
    if part.body_was_set:
        body = part.body if part.body is not None else b""
        return body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
    return decoded_bytes(part)
