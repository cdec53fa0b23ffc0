"""A message to send: headers, a text, a web page, attachments; it can be changed and built again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from maildefer.message.mime.canonical import to_message, to_string
from maildefer.message.mime.header_access import HeaderAccess
from maildefer.message.mime.mail import MailBase
from maildefer.message.mime.mime_part import MIMEPart

if TYPE_CHECKING:
    from maildefer.message.request import MailRequest


@dataclass(slots=True, kw_only=True)
class Attachment:
    """One attachment: `part`, or `data`, or the file of that name."""

    filename: str | None = None
    content_type: str | None = None
    data: str | bytes | None = None
    disposition: str | None = None
    part: MailBase | None = None


class MailResponse(HeaderAccess):
    """A message to send: `Body`, `Html` or both, and `attachments`; headers as in `MailRequest`.

    `Body` or `Html` alone makes a single text part, both make `multipart/alternative`; with attachments it is
    `multipart/mixed`, the texts first, side by side with them, as Salmon's users count the parts.
    """

    def __init__(
        self,
        To: str | Iterable[str] | None = None,
        From: str | None = None,
        Subject: str | None = None,
        Body: str | None = None,
        Html: str | None = None,
    ) -> None:
        self.answers: MailRequest | None = None
        """The message that it answers: to be set where a relay cannot know it from the message that is handled."""
        self.Body = Body
        self.Html = Html
        self.base = MailBase()
        self.attachments: list[Attachment] = []
        self.multipart = bool(Body and Html)
        self._own_type: str | None = None  # the type that `_build` chose, which it may change again
        to = To if To is None or isinstance(To, str) else ", ".join(To)
        self.update(
            {name: value for name, value in (("To", to), ("From", From), ("Subject", Subject)) if value}
        )

    def attach(
        self,
        filename: str | None = None,
        content_type: str | None = None,
        data: str | bytes | None = None,
        disposition: str | None = None,
    ) -> None:
        """Attach `data`, or the file of that name, which is read when the message is built.

        Without a type, it is guessed from the name. With a name, the disposition is `attachment` unless given.
        Raises `TypeError` with neither data nor an existing file, `ValueError` for a type that can't be guessed.
        """
        if data is None and (filename is None or not os.path.exists(filename)):
            raise TypeError(
                f"nothing to attach: give data, or the name of a file that exists (not {filename!r})"
            )
        if content_type is None:
            content_type = _guessed_type(filename)
        if filename is not None and disposition is None:
            disposition = "attachment"
        self.attachments.append(
            Attachment(
                filename=filename, content_type=content_type.lower(), data=data, disposition=disposition
            )
        )
        self.multipart = True

    def attach_part(self, part: MailBase) -> None:
        """Attach a part of a received message as it is."""
        self.attachments.append(Attachment(part=part))
        self.multipart = True

    def attach_all_parts(self, request: MailRequest) -> None:
        """Attach all parts of a received message, and use its multipart type."""
        for part in request.all_parts():
            self.attach_part(part)
        ctype, params = request.base.content_encoding["Content-Type"]
        if ctype is not None and ctype.startswith("multipart/"):
            self.base.content_encoding["Content-Type"] = (ctype, params)
            self._own_type = None

    def clear(self) -> None:
        """Drop the attachments; the headers stay."""
        self.attachments.clear()
        self.base.parts.clear()
        self.multipart = bool(self.Body and self.Html)

    def update(self, headers: Mapping[str, Any]) -> None:
        """Set many headers."""
        for name, value in headers.items():
            self[name] = value

    def all_parts(self) -> list[MailBase]:
        """The direct parts, as the message would be built now; none if it is a single text."""
        self._build()
        return self.base.parts

    def to_message(self) -> MIMEPart:
        """The canonical message, as an object of the `email` package."""
        self._build()
        return to_message(self.base)

    def to_bytes(self) -> bytes:
        """The canonical message, ready to be sent or pushed."""
        return str(self).encode("utf-8", "surrogateescape")

    __bytes__ = to_bytes

    def __str__(self) -> str:
        self._build()
        return to_string(self.base)

    def _build(self) -> None:
        """Build `base` anew from body, page and attachments."""
        base = self.base
        base.parts = []
        base.body = None
        if not (self.attachments or (self.Body and self.Html)):
            self._choose_type("text/html" if self.Html and not self.Body else "text/plain", "text/")
            base.body = self.Body or self.Html or ""
            return
        self._choose_type("multipart/mixed" if self.attachments else "multipart/alternative", "multipart/")
        del base["Content-Transfer-Encoding"]
        if self.Body:
            base.attach_text(self.Body, "text/plain")
        if self.Html:
            base.attach_text(self.Html, "text/html")
        for attachment in self.attachments:
            _add(base, attachment)

    def _choose_type(self, wanted: str, kind: str) -> None:
        """Set the type, unless the application has set one of the same kind."""
        current = self.base.content_encoding["Content-Type"][0]
        if current is None or current == self._own_type or not current.startswith(kind):
            self.base.content_encoding["Content-Type"] = (wanted, {})
            self._own_type = wanted


def _add(base: MailBase, attachment: Attachment) -> None:
    if attachment.part is not None:
        base.parts.append(attachment.part)
        return
    data = attachment.data
    if data is None:
        assert attachment.filename is not None
        with open(attachment.filename, "rb") as file:
            data = file.read()
    # Only the last component of the name: recipients must not learn the path.
    name = os.path.basename(attachment.filename) if attachment.filename else None
    base.attach_file(
        name, data, attachment.content_type or "application/octet-stream", attachment.disposition
    )


def _guessed_type(filename: str | None) -> str:
    import mimetypes  # reads the system's tables of types; only few messages need it

    guessed = mimetypes.guess_type(filename)[0] if filename else None
    if guessed is None:
        raise ValueError(f"no type can be guessed for {filename!r}: give content_type")
    return guessed
