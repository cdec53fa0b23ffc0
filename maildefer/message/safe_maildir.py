"""The standard library's Maildir with new names that hold a hash of the host's name; a module of its own, since
`mailbox` loads the e-mail package, which few programs need."""

from __future__ import annotations

import mailbox
import os
from typing import BinaryIO

from maildefer.maildir.names import fresh_stem, hashed
from maildefer.maildir.system import SYSTEM


class SafeMaildir(mailbox.Maildir):
    """A `mailbox.Maildir` whose new files hold a hash of the host's name in place of the name."""

    def _create_tmp(self) -> BinaryIO:
        """Make the file that `mailbox.Maildir.add` writes to, and then moves to `new/`."""
        path = os.path.join(self._path, "tmp", fresh_stem(hashed(os.uname().nodename), SYSTEM))
        return open(path, "xb+", opener=lambda name, flags: os.open(name, flags, 0o600))
