"""Which cases run with which versions of NFS, and which of them `make test` runs too."""

from __future__ import annotations

import pytest

NEWEST = "4.2"
EVERY = ("4.2", "4.1", "4.0", "3")


def on(*versions: str, chosen: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run a case with these versions, and with the chosen ones in `make test`."""
    return pytest.mark.parametrize(
        "vers", [pytest.param(vers, marks=pytest.mark.chosen if vers in chosen else ()) for vers in versions]
    )
