"""Parses each name once: the oracle sees the same ones again and again."""

from __future__ import annotations

from functools import lru_cache

from maildefer.maildir.names import EntryName, Owner, owner_of

_MOST = 4096


@lru_cache(_MOST)
def entry_in(name: str) -> EntryName:
    return EntryName.parse(name)


@lru_cache(_MOST)
def owner_in(name: str) -> Owner | None:
    return owner_of(name)
