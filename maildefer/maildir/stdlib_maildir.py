"""The standard library's Maildir, with file names that don't tell the host's name."""

from __future__ import annotations

import mailbox
import os
from typing import BinaryIO

from maildefer.maildir.names import fresh_stem, hashed
from maildefer.maildir.system import SYSTEM


class SafeMaildir(mailbox.Maildir):
    """A `mailbox.Maildir` whose new files hold a hash of the host's name in its place."""

    def _create_tmp(self) -> BinaryIO:
        """What `mailbox.Maildir.add` asks for the file that it then writes, and moves to `new/`."""
        path = os.path.join(self._path, "tmp", fresh_stem(hashed(os.uname().nodename), SYSTEM))
        return open(path, "xb+", opener=lambda name, flags: os.open(name, flags, 0o600))
