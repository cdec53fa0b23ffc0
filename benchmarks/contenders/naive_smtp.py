"""naive_smtp.py MAILDIR: what one writes first: an aiosmtpd handler that stores with `mailbox.Maildir`.

It is durable, as maildefer's front end is: the file and `new/` are synced before the 250, in the event loop.
Prints its port, and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import mailbox
import os
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Store:
    """Stores each message and syncs it."""

    def __init__(self, path: str) -> None:
        self.maildir = mailbox.Maildir(path, create=True)
        self.path = path

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        for recipient in envelope.rcpt_tos:
            top = f"Return-Path: <{envelope.mail_from}>\nDelivered-To: {recipient}\n".encode()
            self.maildir.add(top + content)  # mailbox syncs the file itself before it links it into new/
            sync_directory(os.path.join(self.path, "new"))
        return "250 OK"


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


async def serve(path: str) -> None:
    loop = asyncio.get_running_loop()
    handler = Store(path)
    server = await loop.create_server(lambda: SMTP(handler, hostname="naive.example.org"), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
