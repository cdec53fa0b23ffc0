"""Unread input of a client, read by lines or as a whole."""

from __future__ import annotations

from typing import Final

LINE_BYTES: Final = 12288  # RFC 4954's for AUTH, and more than an envelope's longest address needs
ENDLESS_BYTES: Final = 1 << 20
START_BYTES: Final = 64  # kept of a line that is too long: which command it was


class LineTooLong(Exception):
    """A line is too long: only its `start` is kept. `endless`: it exceeds what is read to find its end."""

    def __init__(self, *, start: bytes, endless: bool) -> None:
        super().__init__()
        self.start = start
        self.endless = endless


class LineBuffer:
    """Unread input, cut at each LF; a CR before it is dropped, as by Postfix. Message data is not cut into lines."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0  # where unread input begins
        self._skipped_bytes = 0  # of a line that is too long
        self._start = b""  # of that line

    def __len__(self) -> int:
        return len(self._data) - self._at

    @property
    def in_line(self) -> bool:
        """Whether a line has begun."""
        return self._skipped_bytes > 0 or self._at < len(self._data)

    def add_data(self, data: bytes) -> None:
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def put_back(self, data: bytes) -> None:
        """Return the rest of what `take_all` gave; no input may have been added since."""
        self._data, self._at = data, 0

    def take_all(self) -> bytes:
        """All unread input."""
        data = self._data[self._at :] if self._at else self._data
        self._data, self._at = b"", 0
        return data

    def next_line(self) -> bytes | None:
        """The next line without its end; None before it is complete. Raises LineTooLong at the end of such a line."""
        end = self._data.find(b"\n", self._at)
        size = (len(self._data) if end < 0 else end) - self._at
        if self._skipped_bytes or size > LINE_BYTES:
            self._skip(size, end)
            return None
        if end < 0:
            return None
        line = self._data[self._at : end]
        self._at = end + 1
        return line[:-1] if line.endswith(b"\r") else line

    def _skip(self, size: int, end: int) -> None:
        if not self._skipped_bytes:
            self._start = self._data[self._at :].lstrip(b" \t")[:START_BYTES]
        self._skipped_bytes += size
        if self._skipped_bytes > ENDLESS_BYTES:
            raise LineTooLong(start=self._start, endless=True)
        if end < 0:
            self._data, self._at = b"", 0
            return
        self._at = end + 1
        self._skipped_bytes = 0
        raise LineTooLong(start=self._start, endless=False)
