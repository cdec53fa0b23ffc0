"""From when on a queue's journal has to have a record of every push, and its end."""

from __future__ import annotations

import os
import time

from maildefer.maildir import durable
from maildefer.maildir.journal import KEPT_SECONDS, look_again
from maildefer.maildir.journal_file import boot_name, host_name
from maildefer.maildir.layout import Layout
from maildefer.maildir.rights import folder
from maildefer.maildir.rights.modes import rights_in
from maildefer.maildir.system import token


def expect_records(layout: Layout, since: float | None = None) -> None:
    """Record that every push must have a record from now on, and since when the journal is kept. Raises OSError.

    The last such record counts. Its times are to the microsecond, as in keys.
    """
    now = time.time()
    day = time.strftime("%Y-%m-%d", time.gmtime(now))
    name = f"{day}.{host_name()}.{boot_name()}.{os.geteuid()}.{token(8)}.pushed"  # all may read it
    with folder.open_folder(layout.path, ".maildefer", "journal") as journal:
        rights = rights_in(layout.path)
        descriptor = journal.open(name, durable.NEW, rights.file_mode if rights.is_shared else 0o644)
        try:
            rights.give(descriptor)
            os.write(descriptor, f"\n{now:.6f} begin journal {since or now:.6f} .".encode())
        except OSError as fault:  # a full disk
            fault.filename = f"{layout.journal}/{name}"
            raise
        finally:
            os.close(descriptor)


def end_journal(layout: Layout) -> str | None:
    """Keep no journal from now on, and delete its records; returns where other files of it are. Raises OSError."""
    ended = f"journal-ended-{token(8)}"
    with folder.open_folder(layout.path, ".maildefer") as control:
        control.rename("journal", control, ended)
        look_again(layout, anew=True)
        with control.folder(ended) as journal:
            journal.remove(name for name in journal.names() if name.rpartition(".")[2] in KEPT_SECONDS)
        try:
            control.rmdir(ended)
        except OSError:  # something else is in it, such as a folder, which may hold anything
            return f"{layout.control}/{ended}"
    return None
