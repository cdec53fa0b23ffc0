"""Writes a `MailBase` as bytes: unchanged parts as they were read, everything else in canonical form.

Canonical: ASCII throughout where it can be (an address beyond ASCII is the exception), headers as UTF-8 encoded words,
text in ASCII or UTF-8 unless it declared a charset that fits, everything else in base64. The same message gives the
same text each time: boundaries are made from the content's hash, not from chance.
"""

from __future__ import annotations

from email.message import Message
from typing import IO, Any

from maildefer.digest import blake2b
from maildefer.errors import EncodingError
from maildefer.message.mime.content_headers import CONTENT_ENCODING_KEYS, add_content_header
from maildefer.message.mime.headers import canonical_header, normalize_header
from maildefer.message.mime.mail import MailBase, decoded_body, is_type
from maildefer.message.mime.mime_part import MIMEPart
from maildefer.message.mime.parameters import parsed
from maildefer.message.mime.transfer_encoding import encode_body
from maildefer.message.mime.wire_form import Item, WireForm, boundary_of

Coding = tuple[str, dict[str, str]] | None
"""A value and its parameters; None for a header that is to be absent."""

STATUS = "message/delivery-status"
_PLAIN_CODINGS = (None, "7bit", "8bit", "binary")


def to_string(mail: MailBase, envelope_header: bool = False, *, anew: bool = False) -> str:
    """The text; with `envelope_header`, below an mbox `From ` line; with `anew`, all of it in canonical form."""
    return to_message(mail, anew=anew).as_string(unixfrom=envelope_header)


def to_file(mail: MailBase, file: IO[Any]) -> None:
    """Write the text to a text or binary file."""
    text = to_string(mail)
    try:
        file.write(text)
    except TypeError:  # a binary file
        file.write(text.encode("utf-8", "surrogateescape"))


def to_message(mail: MailBase, *, anew: bool = False) -> MIMEPart:
    """The `email` message. Its type is written back into `mail`, as the last header there.

    Unchanged parts stand in it as they were read; with `anew`, everything is in canonical form. Raises `EncodingError`
    if there are parts and the type can have none; warns with `UnicodeWarning` where text does not fit its declared
    charset.
    """
    parent = mail.parent
    in_report = parent is not None and parent.mime_part.get_content_type() == STATUS
    return _built(mail, anew, in_report, "\n")


def _built(mail: MailBase, anew: bool, in_report: bool, line_end: str) -> MIMEPart:
    """Build one part. `in_report`: it is a group of fields in a delivery report (RFC 3464), a part to `email`."""
    wire = None if anew else mail.wire_form
    if wire is not None and not (wire.can_change or is_unchanged(mail)):
        wire = None
    part = MIMEPart()
    part.wire_form, part.line_end, part.is_block = wire, wire.line_end if wire else line_end, in_report
    if in_report and not mail.parts and (wire is None or not _is_body_unchanged(mail, wire)):
        text = str(mail.body or "").lstrip("\r\n")  # stray text between fields
        part.set_payload(text.encode("ascii", "replace").decode().removesuffix("\n"))
        _add_headers(mail, part, wire, {})
        return _digested(part, "")
    ctype, declared = _type_of(mail)
    if mail.parts:
        children = [_built(child, anew, ctype == STATUS, part.line_end) for child in mail.parts]
        part.set_payload([*children])
        _digested(part, ctype)
        contents = _content_headers_of_parts(mail, part, ctype, declared)
    elif wire is not None and _is_body_unchanged(mail, wire):
        part.set_payload(wire.body if isinstance(wire.payload, list) else wire.payload)
        _digested(part, ctype)
        contents = {}
    else:
        contents = _encode(mail, part, ctype, declared)
        _digested(part, ctype)
    if not in_report:
        _write_type_back(mail, ctype, declared)
    _add_headers(mail, part, wire, contents)
    return part


def is_unchanged(mail: MailBase) -> bool:
    """Whether neither the message nor any part of it was changed since it was read."""
    wire = mail.wire_form
    if wire is None or wire.items_now(list(mail.mime_part.raw_items())) != wire.items:
        return False
    if list(wire.parts) != mail.parts:
        return False
    return all(map(is_unchanged, mail.parts)) if mail.parts else _is_body_unchanged(mail, wire)


def _is_body_unchanged(mail: MailBase, wire: WireForm) -> bool:
    """Whether the body is the text that was read, with the same charset and transfer encoding."""
    if wire.parts or vars(mail.mime_part).get("_payload") is not wire.payload:
        return False
    if mail.body_was_set and mail.body != decoded_body(mail):
        return False
    now = wire.items_now(list(mail.mime_part.raw_items()))
    return now == wire.items or _coding(now) == _coding(wire.items)


def _coding(items: list[Item]) -> tuple[str | None, str | None]:
    """The charset and the transfer encoding in these headers."""
    charset = encoding = None
    for name, value in items:
        if name.lower() == "content-type":
            charset = parsed(value)[1].get("charset")
        elif name.lower() == "content-transfer-encoding":
            encoding = value.strip().lower()
    return charset, None if encoding in _PLAIN_CODINGS else encoding


def _digested(part: MIMEPart, ctype: str) -> MIMEPart:
    payload: Any = vars(part).get("_payload")
    if isinstance(payload, list):
        below = b"".join(child.digest for child in payload)
    else:
        below = str(payload or "").encode("utf-8", "surrogateescape")
    part.digest = blake2b(ctype.encode("utf-8", "surrogateescape") + below).digest()
    return part


def _content_headers_of_parts(
    mail: MailBase, part: MIMEPart, ctype: str, declared: dict[str, str]
) -> dict[str, Coding]:
    """Set the text around the parts; returns the headers that have to differ from those in `mail` for it."""
    children: list[MIMEPart] = vars(part)["_payload"]
    wire, end = part.wire_form, part.line_end
    if not ctype.startswith("multipart/"):
        same = wire is not None and list(wire.parts) == mail.parts
        between = end if ctype == STATUS else ""
        part.gaps = tuple(wire.gaps) if wire and same else ("", *[between] * (len(children) - 1), "")
        return (
            {} if wire and boundary_of(wire.items) is None and same else {"Content-Type": (ctype, declared)}
        )
    kept = wire.boundary if wire is not None and wire.parts else None
    fresh = [child for child in children if child.wire_form is None]
    if kept is None or any(f"--{kept}" in child.as_string() for child in fresh):
        boundary = f"=_{part.digest.hex()[:32]}"
    else:
        boundary = kept
    part.gaps = _gaps(mail, wire if boundary == kept else None, boundary, end)
    now = [] if wire is None else wire.items_now(list(mail.mime_part.raw_items()))
    if wire is not None and boundary_of(now) == boundary:
        return {}
    return {"Content-Type": (ctype, declared | {"boundary": boundary}), "Content-Transfer-Encoding": None}


def _gaps(mail: MailBase, wire: WireForm | None, boundary: str, end: str) -> tuple[str, ...]:
    """The text before, between and behind the parts; between parts that were neighbours, the text that was read."""
    if wire is None:
        first, last, known = f"--{boundary}{end}", f"{end}--{boundary}--{end}", {}
    else:
        first, last = wire.gaps[0], wire.gaps[-1]
        neighbours = zip(wire.parts, wire.parts[1:], wire.gaps[1:-1], strict=False)
        known = {(id(one), id(other)): gap for one, other, gap in neighbours}
        if list(wire.parts[-1:]) != mail.parts[-1:] and last[:1] not in ("\r", "\n"):
            last = end + last
    between = f"{end}--{boundary}{end}"
    pairs = zip(mail.parts, mail.parts[1:], strict=False)
    return (first, *(known.get((id(one), id(other)), between) for one, other in pairs), last)


def _encode(mail: MailBase, part: MIMEPart, ctype: str, declared: dict[str, str]) -> dict[str, Coding]:
    """Give `part` the body in its transfer encoding; returns the headers that have to differ from those in `mail`."""
    body = "" if ctype.startswith("multipart/") else mail.body  # see _type_of
    text, encoding, params = encode_body(body, ctype, declared, mail.content_encoding)
    part.set_payload(text.replace("\r\n", "\n").replace("\n", part.line_end))
    if part.wire_form is None:
        coding: Coding = None if encoding is None else (encoding, {})
        return {"Content-Type": (ctype, params), "Content-Transfer-Encoding": coding}
    contents: dict[str, Coding] = {}
    needs_charset = params != declared and params.get("charset") != "us-ascii"
    if needs_charset or mail.content_encoding["Content-Type"][0] not in (None, ctype):
        contents["Content-Type"] = (ctype, params)
    given = mail.content_encoding["Content-Transfer-Encoding"][0]
    if encoding != given and not (encoding in _PLAIN_CODINGS and given in _PLAIN_CODINGS):
        contents["Content-Transfer-Encoding"] = None if encoding is None else (encoding, {})
    return contents


def _write_type_back(mail: MailBase, ctype: str, declared: dict[str, str]) -> None:
    """Write the declared type back into `mail`; a charset that was only detected must not apply to the next body."""
    wire = mail.wire_form
    before = list(mail.mime_part.raw_items())
    mail.content_encoding["Content-Type"] = (ctype, declared)
    if wire is None:
        return
    own, first = (
        [item for item in items if item[0].lower() == "content-type"] for items in (before, wire.items)
    )
    was_written = any(value is wire.type_written for _, value in own)
    wire.type_written = list(mail.mime_part.raw_items())[-1][1] if own == first or was_written else None


def _add_headers(mail: MailBase, part: MIMEPart, wire: WireForm | None, contents: dict[str, Coding]) -> None:
    """Copy the headers, as they were read or in canonical form; those in `contents` are replaced."""
    now = list(mail.mime_part.raw_items())
    if wire is None:
        _add_canonical_headers(mail, part, now)
    else:
        known, left = set(wire.items), dict(contents)
        for name, value in wire.items_now(now):
            normal = normalize_header(name)
            if normal in contents:
                _add_content(part, normal, left.pop(normal, None))
            elif (name, value) in known:
                part.set_raw(name, value)
            elif normal in CONTENT_ENCODING_KEYS and value.isascii():
                part.set_raw(normal, value)
            else:
                part.set_raw(normal, canonical_header(normal, value))
    for name, coding in contents.items():
        if name not in part:
            _add_content(part, name, coding)


def _add_content(part: MIMEPart, name: str, coding: Coding) -> None:
    if coding is not None:
        made = Message()
        add_content_header(made, name, *coding)
        part.set_raw(*next(iter(made.raw_items())))


def _add_canonical_headers(mail: MailBase, part: MIMEPart, items: list[Item]) -> None:
    disposed = False
    for name, value in items:
        normal = normalize_header(name)
        if normal == "Content-Disposition":
            if disposed:
                continue
            disposed = True
            coding, params = mail.content_encoding[normal]
            if coding:
                add_content_header(part, normal, coding, params)
        elif normal not in ("Content-Type", "Content-Transfer-Encoding"):
            part[normal] = canonical_header(normal, str(value))
    if mail.parent is None and not part.is_block and "Mime-Version" not in part:
        part["Mime-Version"] = "1.0"


def _type_of(mail: MailBase) -> tuple[str, dict[str, str]]:
    ctype, params = mail.content_encoding["Content-Type"]
    if not is_type(ctype):
        ctype, params = _default_type(mail), {}
    main = ctype.partition("/")[0]
    if mail.parts and main not in ("multipart", "message"):
        raise EncodingError(
            f"a message of type {ctype} cannot have parts: make it multipart/mixed, or clear its parts"
        )
    if not mail.parts and main == "multipart" and mail.body and mail.body.strip():
        return "text/plain", {}  # declared as multipart, but without any boundary
    return ctype, params


def _default_type(mail: MailBase) -> str:
    if not mail.parts:
        return "text/plain"
    default = mail.mime_part.get_default_type()  # differs in a multipart/digest
    return default if default.startswith("message/") else "multipart/mixed"
