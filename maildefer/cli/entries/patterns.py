"""What `--sender`, `--recipient` and `--text` look for in an entry's bytes. All of these are untrusted."""

from __future__ import annotations

import re

from maildefer.errors import MaildeferError


def address_pattern(text: str) -> re.Pattern[str]:
    """A pattern of addresses, in any case: one address, `@domain`, one with `*`, or `<>` for the null sender."""
    wanted = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if wanted.startswith("@"):
        wanted = f"*{wanted}"
    return re.compile(".*".join(map(re.escape, wanted.split("*"))), re.IGNORECASE | re.DOTALL)


def has_text(data: bytes, text: str) -> bool:
    """Whether a message has this text, in any case: as its bytes are, in a header that was decoded, or in a part."""
    wanted = text.casefold()
    if wanted in data.decode("utf-8", "surrogateescape").casefold():
        return True
    from maildefer.message.request import MailRequest  # parses, which the bytes may spare

    try:
        message = MailRequest(None, None, None, data)
        texts = [
            *(value for _, value in message.items()),
            *(part.body for part in (message.base, *message.walk())),
        ]
    except MaildeferError:  # nothing can be decoded in it
        return False
    return any(isinstance(one, str) and wanted in one.casefold() for one in texts)
