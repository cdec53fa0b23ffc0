"""What a client has sent and nobody has dealt with yet: cut into lines, or taken as it is."""

from __future__ import annotations

from typing import Final

LINE_BYTES: Final = 12288  # RFC 4954's for AUTH, and more than an envelope's longest address needs
ENDLESS_BYTES: Final = 1 << 20
START_BYTES: Final = 64  # kept of a line that is too long: which command it was


class LineTooLong(Exception):
    """Nothing of it is kept but its `start`. `endless`: it is so long that nobody should wait for its end."""

    def __init__(self, *, start: bytes, endless: bool) -> None:
        super().__init__()
        self.start = start
        self.endless = endless


class LineBuffer:
    """Lines end with LF; a CR before it is dropped, as Postfix does. Messages are not read here."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0  # what is before it has been taken
        self._skipped = 0  # bytes of a line that is too long
        self._start = b""  # of that line

    def __len__(self) -> int:
        return len(self._data) - self._at

    @property
    def in_line(self) -> bool:
        """Whether a line has begun."""
        return self._skipped > 0 or self._at < len(self._data)

    def add(self, data: bytes) -> None:
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def give_back(self, data: bytes) -> None:
        """What was taken, and is somebody else's; nothing else may have come meanwhile."""
        self._data, self._at = data, 0

    def take(self) -> bytes:
        """All there is."""
        data = self._data[self._at :] if self._at else self._data
        self._data, self._at = b"", 0
        return data

    def line(self) -> bytes | None:
        """The next one, without its end; None where it has none yet. Raises LineTooLong when it ends, if it does."""
        end = self._data.find(b"\n", self._at)
        size = (len(self._data) if end < 0 else end) - self._at
        if self._skipped or size > LINE_BYTES:
            self._skip(size, end)
            return None
        if end < 0:
            return None
        line = self._data[self._at : end]
        self._at = end + 1
        return line[:-1] if line.endswith(b"\r") else line

    def _skip(self, size: int, end: int) -> None:
        if not self._skipped:
            self._start = self._data[self._at :].lstrip(b" \t")[:START_BYTES]
        self._skipped += size
        if self._skipped > ENDLESS_BYTES:
            raise LineTooLong(start=self._start, endless=True)
        if end < 0:
            self._data, self._at = b"", 0
            return
        self._at = end + 1
        self._skipped = 0
        raise LineTooLong(start=self._start, endless=False)
