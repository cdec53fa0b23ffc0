"""The standard error that the pool was started with, for failures, which a log file must not hide."""

from __future__ import annotations

import contextlib
import os

from maildefer.events import plain


class StartupTerminal:
    """A copy of standard error, kept beside the log file by the supervisor; closed in its children."""

    def __init__(self, log_file: str | None) -> None:
        """Copy it, before standard error goes to the file; without a log file do nothing."""
        self._log_file = log_file
        self._descriptor = -1
        if log_file is not None:
            with contextlib.suppress(OSError):  # started without it
                self._descriptor = os.dup(2)
                os.register_at_fork(after_in_child=self._close)

    def report_failure(self, why: str) -> None:
        """Write that the pool has failed; the file has the details."""
        if self._descriptor >= 0:
            text = f"maildefer: {plain(why)} (more in {self._log_file})\n"
            with contextlib.suppress(OSError):  # hung up
                os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
