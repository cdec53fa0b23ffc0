"""The heap of a process that forks: its children share each page of it, until one of them writes to that page."""

from __future__ import annotations

import gc
import sys


def freeze() -> None:
    """Leave what there is now to all children to come: as few of its pages as can be are written to."""
    gc.collect()
    gc.freeze()  # the collector writes to what it looks at
    if sys.version_info < (3, 12):
        sys._clear_type_cache()  # it counts names, and so writes to them as it replaces them
