"""Where a message is from, as the journal notes it at its push for `maildefer explain`."""

from __future__ import annotations

import re
from typing import Final

from maildefer.maildir import journal
from maildefer.message.envelope import own_block, split

_TOP_BYTES: Final = 1 << 14
_MESSAGE_ID: Final = re.compile(rb"\nmessage-id:[ \t]*(\S{1,300})", re.IGNORECASE).search
_CLIENT: Final = re.compile(rb"\nReceived: from ([^\n]{1,300}?) by ").search


def origin(data: bytes) -> dict[str, str]:
    """The envelope of an entry's bytes, its client and its Message-ID, as far as they are there; any bytes will do."""
    if (own := own_block(data)) is not None:
        sender, recipient, *_, below = own
        facts, client = {"from": f"<{sender}>", "to": recipient}, _CLIENT(data, 0, below)
        message_id = _MESSAGE_ID(data, below - 1, below + _TOP_BYTES)
    else:
        envelope, client = split(data)[0], None
        facts = {} if envelope is None else {"from": f"<{envelope.sender}>", "to": envelope.recipient}
        message_id = _MESSAGE_ID(b"\n" + data[:_TOP_BYTES])
    if message_id is not None:
        facts["id"] = message_id[1].decode("utf-8", "backslashreplace")
    if client is not None:
        facts["client"] = client[1].decode("utf-8", "backslashreplace")
    return facts


journal.describe_with(origin)  # in each process that imports this: it pushes mail
