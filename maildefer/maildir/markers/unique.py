"""Pushing with a unique key, in one call: of the entries of one key at most one has not ended."""

from __future__ import annotations

import os

from maildefer.maildir.layout import Layout
from maildefer.maildir.markers.markers import Compose, Markers

_markers: dict[tuple[str, str], Markers] = {}  # of this process, by queue and host
os.register_at_fork(after_in_child=_markers.clear)  # a sync that runs in the parent would never end here


class PushedKey(str):
    """The key of an entry of a unique key: of the new one, or, unless `is_new`, of the one that has not ended."""

    __slots__ = ("is_new",)
    is_new: bool


def push_unique(layout: Layout, unique: str, compose: Compose, *, host: str) -> PushedKey:
    """Push an entry unless one of that key has not ended. Raises what `Markers.push` raises."""
    place = layout.path, host
    markers = _markers.get(place) or _markers.setdefault(place, Markers(layout, host=host))
    marked = markers.push(unique, compose)
    key = PushedKey(marked.key)
    key.is_new = marked.is_new
    return key
