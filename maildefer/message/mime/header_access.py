"""Access to headers by name, for requests and responses, which hold a `MailBase`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maildefer.message.mime.mail import MailBase


class HeaderAccess:
    """`message["subject"]` in any case, decoded, None if absent; setting replaces all of that name and puts it last."""

    __slots__ = ()

    base: MailBase

    def _readable(self) -> MailBase:
        """The `MailBase` from which headers are read; it may hold the headers only."""
        return self.base

    def __getitem__(self, name: str) -> str | None:
        return self._readable()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.base[name] = value

    def __delitem__(self, name: str) -> None:
        del self.base[name]

    def __contains__(self, name: str) -> bool:
        return name in self._readable()

    def keys(self) -> list[str]:
        """The names of all headers, repeated ones too, each word capitalised."""
        return self._readable().keys()

    def items(self) -> list[tuple[str, str]]:
        """All headers: name, text."""
        return self._readable().items()
