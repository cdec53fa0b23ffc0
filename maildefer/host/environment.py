"""The environment of a process that talks to the network, and of all that it starts: variables of a list.

Its starter's other variables may hold passwords, and a broken process gives away what it has.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from typing import Final

_NAMES: Final = frozenset(
    # Where programs, files and the user are; what Python and the libraries need to be loaded at all.
    "PATH HOME USER LOGNAME TMPDIR LD_LIBRARY_PATH VIRTUAL_ENV XDG_RUNTIME_DIR"
    # How texts and times are read.
    " LANG LANGUAGE TZ TZDIR"
    # Certificates of others, and how TLS is configured on this host; how much memory the C library keeps.
    " SSL_CERT_FILE SSL_CERT_DIR OPENSSL_CONF OPENSSL_MODULES MALLOC_ARENA_MAX MALLOC_TRIM_THRESHOLD_"
    # Our own, but MAILDEFER_PASSWORD: another name that begins so may be a program's secret.
    " MAILDEFER_PROJECT MAILDEFER_SETTINGS_MODULE SALMON_SETTINGS_MODULE MAILDEFER_QUEUE MAILDEFER_HOST_ID"
    " MAILDEFER_RUNTIME_DIR MAILDEFER_TEST_STORE MAILDEFER_LOG_FILE MAILDEFER_LOG_FORMAT MAILDEFER_LOG_LEVEL"
    " MAILDEFER_DRAIN_SECONDS MAILDEFER_HANDLER_TIMEOUT_SECONDS MAILDEFER_LIFETIME_SECONDS MAILDEFER_MAX_ATTEMPTS"
    " MAILDEFER_MAX_BYTES MAILDEFER_MAX_CRASHES MAILDEFER_MEMORY_BYTES_PER_WORKER MAILDEFER_MESSAGES_PER_WORKER"
    " MAILDEFER_CONCURRENCY MAILDEFER_HEALTH MAILDEFER_PRELOAD MAILDEFER_RELOAD MAILDEFER_STATE_PATH"
    " MAILDEFER_WORKERS MAILDEFER_IDLE_SECONDS_PER_WORKER".split()
)
_BEGINNINGS: Final = ("LC_", "PYTHON")
_is_name: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*").fullmatch


def passed_variables(named: Collection[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of `environ`, else of this process, that are on the list or in `named`."""
    given = os.environ if environ is None else environ
    return {
        name: value
        for name, value in given.items()
        if name in _NAMES or name in named or name.startswith(_BEGINNINGS)
    }


def is_variable(name: object) -> bool:
    """Whether that can be the name of a variable."""
    return isinstance(name, str) and _is_name(name) is not None
