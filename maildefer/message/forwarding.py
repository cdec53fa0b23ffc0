"""A received message on its way to somebody else, with the trace by which a loop is found (RFC 5321, section 6.3)."""

from __future__ import annotations

import os
import time
from typing import Any

from maildefer.message import addresses
from maildefer.message.envelope import date, encode_address
from maildefer.message.request import MailRequest


def forwarded(message: MailRequest, to: addresses.Given = None) -> bytes:
    """What to give to a relay instead of the message itself: its bytes below a Received line of this host.

    Where it goes `to` another address than the one it came for, that one is noted in a Delivered-To line too: should
    the message come back for it, the front end refuses it. Not so where it goes on to the same address, since whoever
    delivers it there would take that for a loop.
    """
    data = message.to_bytes()
    end = "\r\n" if b"\r\n" in data[: data.find(b"\n") + 1] else "\n"
    identity = f" id {message.key.partition(',')[0]}" if message.key else ""
    lines = [f"Received: by {os.uname().nodename} (maildefer) with forward{identity}; {date(time.time())}"]
    given: Any = message.To
    if given and to is not None and given.lower() not in {one.lower() for one in addresses.every(to)}:
        lines.insert(0, f"Delivered-To: {encode_address(given).decode('utf-8', 'surrogateescape')}")
    return "".join(line + end for line in lines).encode("utf-8", "surrogateescape") + data
