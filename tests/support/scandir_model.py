"""A stand-in for what `os.scandir` returns, for models of a filesystem."""

from __future__ import annotations

from collections.abc import Iterator


class Seen:
    """What a scan finds."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Listing:
    """What `os.scandir` returns, as far as it is used."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, *why: object) -> None:
        pass

    def __iter__(self) -> Iterator[Seen]:
        return map(Seen, self._names)
